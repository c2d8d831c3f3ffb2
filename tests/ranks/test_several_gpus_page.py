"""docs/how_to/several_gpus.md: its commands in two processes, its script for SLURM, the sentences that it explains."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
from support.rank_work import commanded
from support.runs import training_rows
from support.two_ranks import TwoRanks
from torch.distributed.run import get_args_parser

from policy_accel.cli import main

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "how_to" / "several_gpus.md").read_text()
BLOCKS = re.findall(r"^```(sh|bash)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
LINES = [line for kind, text in BLOCKS if kind == "sh" for line in text.replace("\\\n", " ").splitlines()]
HERE = [shlex.split(line) for line in LINES if "--standalone" in line]
SMALL = {
    "train": [
        "training.steps=2",
        "training.batch_size=16",
        "training.device=cpu",
        "training.threads=1",
        "evaluation.workers=0",
        "evaluation.episodes=2",
        "evaluation.videos=0",
        "task.max_steps=8",
    ],
    "images": [
        "task=shapes",
        "task.limit=64",
        "training.steps=2",
        "training.batch_size=16",
        "training.device=cpu",
        "training.threads=1",
        "model.width=16",
        "model.depth=1",
        "model.heads=2",
        "model.patch=8",
        "evaluation.samples=0",
        "evaluation.curve_samples=0",
        "evaluation.grid=0",
    ],
    "evaluate": ["--workers", "0", "--episodes", "2"],
}


def launched(words: list[str]) -> tuple[Namespace, list[str]]:
    """What torchrun takes of a command line, and the command that it starts."""
    assert words[0] == "torchrun"
    options = get_args_parser().parse_args(words[1:])
    assert options.module
    assert options.training_script == "policy_accel"
    return options, options.training_script_args


def test_the_commands_for_one_machine_run_in_two_processes(two: TwoRanks, tmp_path: Path) -> None:
    assert len(HERE) == 4
    for words in HERE:
        options, command = launched(words)
        assert options.nproc_per_node == "gpu"
        small = SMALL["images" if "model=dit_xl" in command else command[0]]
        kept = [word for word in command if word not in ("task=imagenet256_latents", "task.data=PATH")]
        assert two(commanded, tmp_path, [*kept, *small]) == [0, 0]
    for name in ("shared", "pieces", "shared_xl"):
        assert [row["step"] for row in training_rows(tmp_path / "runs" / name)] == [2]
    first, second = map(json.loads, (tmp_path / "runs" / "shared" / "evaluations.jsonl").read_text().splitlines())
    assert second["episodes"] == first["episodes"]
    assert [episode["seed"] for episode in first["episodes"]] == [100000, 100001]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of a cluster: `srun` starts one task, `torchrun` writes down what it was given."""
    programs = {
        "srun": 'exec "$@"',
        "scontrol": "printf 'node-a\\nnode-b\\n'",
        "torchrun": 'printf "%s\\n" "$@" > given',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"NODELIST": "node-[a-b]", "NUM_NODES": "2", "ID": "17"}.items():
        monkeypatch.setenv(f"SLURM_JOB_{name}", value)
    return tmp_path


def test_the_script_for_slurm_is_the_command_for_several_nodes(cluster: Path) -> None:
    (script,) = (text for kind, text in BLOCKS if kind == "bash")
    (cluster / "large.sbatch").write_text(script)
    subprocess.run(["bash", "-eu", "large.sbatch"], cwd=cluster, check=True)
    options, command = launched(["torchrun", *(cluster / "given").read_text().splitlines()])
    assert (options.nnodes, options.nproc_per_node, options.max_restarts) == ("2", "gpu", 3)
    assert (options.rdzv_endpoint, options.rdzv_id) == ("node-a:29500", "17")
    (by_hand,) = (shlex.split(line) for line in LINES if "--nnodes" in line)
    assert launched(by_hand)[1] == command
    assert main([*command, "--print-config"]) == 0


def test_the_sentences_that_the_page_explains_are_said() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "policy_accel" / "training").glob("*.py"))
    said = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)
    assert len(said) == 5
    for sentence in said:
        parts = [part for part in re.split(r"\.\.\.|\d+", sentence) if part.strip()]
        assert all(part in re.sub(r"\{[^}]*\}", "", sources) for part in parts), sentence
