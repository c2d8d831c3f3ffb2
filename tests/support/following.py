"""Follows a page as its reader would: its files are written, its Python and its commands are run."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from support.data import write_zarr
from support.user_modules import forgotten_afterwards

from policy_accel.cli import main
from policy_accel.data import Episodes
from policy_accel.images.sets import ImageSplit, ImageTaskConfig, take

PROGRAMS = ("policy-accel ", "python ", "python3 ", "make ", "pip ", "git ", "docker ", "torchrun ", "srun ")
"""What an indented line begins with that is a command; a block in a fence is one where it says `sh`."""

ROBOTS = {
    "train": [
        "training.steps=2",
        "training.batch_size=16",
        "training.device=cpu",
        "evaluation.workers=0",
        "evaluation.episodes=1",
    ],
    "evaluate": ["--workers", "0", "--episodes", "1"],
}
"""What makes commands of robot policies short, as `shortened` takes it."""

IMAGES = {
    "train": [
        *("training.steps=2", "training.batch_size=8", "training.optimizer.warmup_steps=1", "training.device=cpu"),
        *("model.channels=8", "model.multipliers=[1,2]", "model.blocks=1", "model.attention_resolutions=[]"),
        *("model.heads=1", "sampling.steps=1", "evaluation.video=false", "evaluation.grid=4", "evaluation.samples=20"),
    ],
    "evaluate": ["--samples", "20"],
}
"""The same of image models."""


def few_shapes(load: Callable[[ImageTaskConfig], ImageSplit]) -> Callable[[ImageTaskConfig], ImageSplit]:
    """`load` that leaves most of the shipped shapes out."""

    def few(config: ImageTaskConfig) -> ImageSplit:
        split = load(replace(config, limit=100) if config.name == "shapes" else config)
        return (
            split
            if split.held_out is None
            else replace(split, held_out=take(split.held_out, np.arange(min(40, len(split.held_out.images)))))
        )

    return few


def write_pusht(path: Path) -> None:
    """Three demonstrations with the arrays of the human ones; no test may download those."""
    rng = np.random.default_rng(0)
    arrays = {
        "state": rng.uniform(0, 512, (90, 5)).astype("f4"),
        "keypoint": rng.uniform(0, 512, (90, 9, 2)).astype("f4"),
        "action": rng.uniform(0, 512, (90, 2)).astype("f4"),
        "img": rng.integers(0, 256, (90, 96, 96, 3), dtype=np.uint8),
    }
    path.parent.mkdir(exist_ok=True)
    write_zarr(path, Episodes(arrays, np.array([30, 60, 90])))


FENCE = re.compile(r"(?:^`([\w./]+)`[^\n]*\n)?^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}[^\n]*\n|\n)+")


class Block(NamedTuple):
    """A block of code: the file that it is (its name stands in the line above) or "", the language, the text."""

    name: str
    language: str
    text: str


def blocks(text: str, *, indented: bool = False) -> list[Block]:
    """The blocks of a page in their order: those in fences, and with `indented` those that are indented and have
    commands, as `sh`. Where a page has both, the indented ones say how commands are written."""
    found: list[tuple[int, Block]] = []

    def keep(match: re.Match[str]) -> str:
        found.append((match.start(), Block(match[1] or "", match[2].strip(), match[3])))
        return re.sub(r"[^\n]", ".", match[0])  # what is in a fence is not indented

    for match in INDENTED.finditer(FENCE.sub(keep, text)):
        inside = re.sub(r"^ {4}", "", match[0], flags=re.MULTILINE).strip("\n") + "\n"
        if indented and any(line.startswith(PROGRAMS) for line in inside.splitlines()):
            found.append((match.start(), Block("", "sh", inside)))
    return [block for _, block in sorted(found, key=lambda pair: pair[0])]


def lines(text: str) -> list[str]:
    """The commands of a block, each in one line and without its comment."""
    whole = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    split = [shlex.split(line, comments=True) for line in whole]
    return [re.sub(r"\s+#.*$", "", line).strip() for line, words in zip(whole, split, strict=True) if words]


def lines_of(text: str) -> list[str]:
    """All commands of a page, in fences or indented."""
    return [line for _, language, block in blocks(text, indented=True) if language == "sh" for line in lines(block)]


def shortened(words: Sequence[str], small: Mapping[str, Sequence[str]]) -> list[str]:
    """Words of `policy-accel` for little work: a thousandth of the updates, and what `small` has for the command, but
    for data and a run directory where the command names its own.

    Args:
        words: of the command, without the program.
        small: words to add, by how a command begins: "train", "data generate". The longest that fits is taken. COMMAND
            in a word is a name for this very command: alternatives do not share a run directory.
    """
    fewer = [
        re.sub(r"^training\.steps=(\d+)$", lambda number: f"training.steps={max(2, int(number[1]) // 1000)}", word)
        for word in words
    ]
    fitting = [begins for begins in small if f"{' '.join(words)} ".startswith(f"{begins} ")]
    added = small[max(fitting, key=len)] if fitting else []
    given = {word.partition("=")[0] for word in words if word.startswith(("training.steps=", "task.data=", "run_dir="))}
    own = f"{zlib.crc32(' '.join(words).encode()):08x}"
    return [*fewer, *(word.replace("COMMAND", own) for word in added if word.partition("=")[0] not in given)]


def run_line(line: str, small: Mapping[str, Sequence[str]]) -> None:
    """Run a command as a process of its own would, with little work."""
    program, *words = shlex.split(line)
    with forgotten_afterwards():
        if program == "python":
            run_script(words[0])
        else:
            assert program == "policy-accel", f"a test runs this line, or says that it does not: {line}"
            assert main(shortened(words, small)) == 0, line


def run_script(name: str) -> None:
    sys.path.insert(0, os.getcwd())
    runpy.run_path(name, run_name="__main__")


@contextmanager
def in_another_terminal(line: str) -> Iterator[None]:
    """Run a server until the end of the block, from when its port answers."""
    port = int(shlex.split(line)[shlex.split(line).index("--port") + 1])
    server = subprocess.Popen([sys.executable, "-m", "policy_accel", *shlex.split(line)[1:]])
    try:
        for _ in range(600):
            assert server.poll() is None, line
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(30)


def follow(
    text: str,
    small: Mapping[str, Sequence[str]],
    *,
    indented: bool = False,
    not_run: Collection[str] = (),
    replaced: Mapping[str, str] | None = None,
    known: Mapping[str, Any] | None = None,
) -> list[str]:
    """Follow a page, or a part of one, in the current folder. Blocks of Python without a name share their variables.

    Args:
        text: of the page.
        small: words to add to commands, as `shortened` takes them.
        indented: follow indented blocks too.
        not_run: lines that no test can run. Each has to stand on the page.
        replaced: text of the page, and what stands in its place while it is followed.
        known: variables that the page's Python takes for granted.

    Returns:
        the commands that were run.
    """
    for shown, instead in (replaced or {}).items():
        assert shown in text, f"the page does not have {shown!r} any more"
        text = text.replace(shown, instead)
    names: dict[str, Any] = {"__name__": "__main__", **(known or {})}
    run, left = [], set(not_run)
    with ExitStack() as until_the_end:
        for name, language, block in blocks(text, indented=indented):
            if name:
                Path(name).write_text(block)
            elif language == "python":
                with forgotten_afterwards():
                    sys.path.insert(0, os.getcwd())
                    exec(compile(block, "page", "exec"), names)
            elif language == "sh":
                for line in lines(block):
                    if line in not_run:
                        left.discard(line)
                        continue
                    run.append(line)
                    if line.startswith("policy-accel serve "):
                        until_the_end.enter_context(in_another_terminal(line))
                    else:
                        run_line(line, small)
            else:
                assert language in ("text", "bibtex") or language.startswith("{"), f"no name above a block: {block}"
    assert not left, f"these lines are not on the page any more: {sorted(left)}"
    return run


def printed(text: str) -> list[str]:
    """The lines that a page shows as printed, of its blocks of `text`; `...` stands for what is left out."""
    return [
        line for _, language, block in blocks(text) if language == "text" for line in block.splitlines() if line.strip()
    ]


def form(line: str) -> str:
    """A line of output with `#` for every number and a space for every gap, so that runs of any length are alike."""
    return re.sub(r"[-+]?\b\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", "#", " ".join(line.split()))


def not_printed(text: str, output: str) -> list[str]:
    """Of the lines that a page shows as printed, those whose form is in no line of an output."""
    said = {form(line) for line in output.splitlines()}

    def has(line: str) -> bool:
        pattern = ".*".join(re.escape(part.strip()) for part in form(line).split("..."))
        return any(re.fullmatch(pattern, other) for other in said)

    return [line for line in printed(text) if line.strip() != "..." and not has(line)]
