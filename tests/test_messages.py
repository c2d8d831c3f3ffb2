"""Every setting that a message names exists; the libraries name none and speak of their own arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import policy_accel
from policy_accel.images.config import ImageConfig
from policy_accel.policy.config import RobotConfig

PACKAGE = Path(policy_accel.__file__).parent
SECTIONS = "acceleration|diffusion|training|sampling|task|policy|model|encoder|evaluation"
KEY = re.compile(rf"(?<![\w./-])(?:{SECTIONS})(?:\.[a-z_]\w*)+\b(?!\()")
FILES = {"evaluation.json"}
SPEAKERS = {"UserError", "naming", "one_of", "check_choice", "refuse_idle"}
UNKNOWN = "\0"  # stands in a message for a value that only a run knows
OF_THE_SETTINGS = {"config.py", "build.py"}
SOURCES = sorted(PACKAGE.rglob("*.py"))
LIBRARIES = [
    path
    for room in ("acceleration", "diffusion")
    for path in sorted((PACKAGE / room).glob("*.py"))
    if path.name not in OF_THE_SETTINGS
]


def with_subclasses(cls: type) -> Iterator[type]:
    """`cls` and every class that a Hydra group may put in its place."""
    yield cls
    subclass: type
    for subclass in cls.__subclasses__():
        yield from with_subclasses(subclass)


def settings(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys of a configuration; one that takes any key below it ends in a dot."""
    for node in with_subclasses(cls):
        hints = get_type_hints(node)
        for field in fields(node):
            key, hint = prefix + field.name, hints[field.name]
            yield key
            for part in (hint, *get_args(hint)):
                if is_dataclass(part):
                    assert isinstance(part, type)
                    yield from settings(part, f"{key}.")
                if get_origin(part) is dict or part is Any:
                    yield f"{key}."


KNOWN = {*settings(RobotConfig), *settings(ImageConfig)}


def exists(key: str) -> bool:
    return key in KNOWN or any(known.endswith(".") and key.startswith(known) for known in KNOWN)


def constants(tree: ast.AST) -> dict[str, str]:
    """Names that a module binds once, to a string."""
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    values = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {name: value for name, value in values.items() if isinstance(value, str) and names.count(name) == 1}


def text_of(node: ast.AST, known: dict[str, str]) -> str | None:
    """The text of a string, an f-string or a named constant, with `UNKNOWN` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, known) or UNKNOWN
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, known) or "" for part in node.values)
    return None


def name_of(call: ast.AST | None) -> str:
    return call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string in a `raise` and in the calls that make messages."""
    known = constants(tree)

    def inside(node: ast.AST) -> Iterator[tuple[int, str]]:
        text = text_of(node, known)
        if text is not None:
            yield node.lineno, text  # type: ignore[attr-defined]
        else:
            for child in ast.iter_child_nodes(node):
                yield from inside(child)

    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) or name_of(node) in SPEAKERS:
            yield from inside(node)


def renamed(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and setting of every argument that `naming` renames."""
    known = constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node) == "naming":
            section = text_of(node.args[0], known) or UNKNOWN
            for keyword in node.keywords:
                name = text_of(keyword.value, known) or UNKNOWN
                yield node.lineno, name if "." in name else f"{section}.{name}"


def unknown_settings(source: str) -> list[str]:
    """Settings that messages of `source` name and no track has."""
    tree = ast.parse(source)
    named = [(line, key) for line, text in texts(tree) for key in KEY.findall(text)] + list(renamed(tree))
    return sorted({f"line {line}: {key}" for line, key in named if key not in FILES and not exists(key)})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_setting_that_a_message_names_exists(path: Path) -> None:
    assert unknown_settings(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "unknown"),
    [
        ('raise ValueError(f"acceleration.timesteps.widht={w} is small.")', ["line 1: acceleration.timesteps.widht"]),
        ('raise ValueError(f"acceleration.timesteps={w}, diffusion.target and task.environment_options.x are.")', []),
        ('S = "acceleration"\nraise E(f"{S}.nois is; {S}.noise, {x}.nois not")', ["line 2: acceleration.nois"]),
        ('name = "task"\nfor name in n: raise E(f"training.{name}.x")', []),
        ('one_of("diffusion.famly", x, y)', ["line 1: diffusion.famly"]),
        ('with naming("acceleration.noise", count="grops"): ...', ["line 1: acceleration.noise.grops"]),
        ('with naming("acceleration.noise", count="diffusion.timesteps"): ...', []),
        ('print("acceleration.nois")', []),
        ('raise ValueError("RUN/evaluation.json, policy_accel.model.x, model/task.yaml and a task. End")', []),
    ],
)
def test_unknown_settings_are_found(source: str, unknown: list[str]) -> None:
    assert unknown_settings(source) == unknown


def arguments_of(tree: ast.AST) -> set[str]:
    """Arguments of functions and attributes of classes."""
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return arguments | {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def strange_errors(source: str, others: frozenset[str] = frozenset()) -> list[str]:
    """Errors of a library's source that are for the user, name a setting, or do not begin with an argument, of its own
    or one of `others`."""
    tree = ast.parse(source)
    known = constants(tree)
    arguments = arguments_of(tree) | others
    strange = []
    for node in ast.walk(tree):
        if name_of(node) in SPEAKERS - {"check_choice"}:
            strange.append(f"line {node.lineno}: {name_of(node)}")  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and name_of(node) in ("ValueError", "check_choice"):
            text = text_of(node.args[0], known) or ""
            first = re.match(r"\w+|\0", text)
            if first is None or first[0] not in arguments | {UNKNOWN} or KEY.search(text):
                strange.append(f"line {node.lineno}: {text}")
    return strange


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_libraries_speak_of_their_own_arguments(path: Path) -> None:
    # The arguments of the schedulers are those of the classes that people make, whichever file they are checked in.
    made = path.with_name("schedulers.py")
    others = frozenset(arguments_of(ast.parse(made.read_text()))) if "scheduler" in path.name else frozenset()
    assert strange_errors(path.read_text(), others) == []


@pytest.mark.parametrize(
    ("source", "strange"),
    [
        ('def f(width):\n    raise ValueError(f"width={width} is small")', []),
        ('def f(width):\n    raise ValueError(f"The width {width} is small")', ["line 2: The width \0 is small"]),
        ('def f(width):\n    raise UserError(f"width={width} is small")', ["line 2: UserError"]),
        ('def f(width):\n    one_of("width", width, W)', ["line 2: one_of"]),
        (
            'def f(a):\n    raise ValueError("a is less than task.resolution")',
            ["line 2: a is less than task.resolution"],
        ),
        ('class C:\n    width: float\n    def f(self):\n        check_choice("width", self.width, W)', []),
    ],
)
def test_strange_errors_are_found(source: str, strange: list[str]) -> None:
    assert strange_errors(source) == strange
