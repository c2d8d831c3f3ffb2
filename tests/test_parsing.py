"""Bytes of somebody else, and what the commands that read a run make of files of another shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scored_runs import config_of, evaluation_of, write_run

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.parsing import from_json, from_yaml, read_record

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NO_JSON = ["", "{", "[" * 100_000, '{"a":' * 50_000, b"\xff\xfe\x00", "9" * 10_000]
NO_YAML = [
    "a: [",
    "[" * 50_000,
    "? " * 3_000,
    "2001-99-99",
    "a: !!python/object/apply:os.system [ls]",
    b"\xff\xfe\x00",
    BOMB,
]
SHAPES = ["[]", "5", '"x"', "null", "{}", '{"score": {}}', '{"score": 1, "episodes": 3}', '{"episodes": [5]}']
SHAPES += ['{"step": {}, "score": [1]}', '{"step": "x"}', '{"seed": 1, "track": [1], "task": 5, "training": []}']


@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: str(text[:12]))
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(text)


@pytest.mark.parametrize("text", NO_YAML, ids=lambda text: str(text[:12]))
def test_what_is_no_yaml_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_yaml(text)


def test_a_record_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "a.yaml").write_text("a: 1")
    assert read_record(tmp_path / "a.json", "") == read_record(tmp_path / "a.yaml", "") == {"a": 1}
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match=r"a\.json is damaged \(it holds no record but list\); throw it away\."):
        read_record(tmp_path / "a.json", "throw it away")


@pytest.mark.parametrize("file", ["config.yaml", "evaluation.json", "metrics.jsonl", "evaluations.jsonl"])
@pytest.mark.parametrize("content", [*SHAPES, *NO_JSON[1:5:2], BOMB], ids=lambda text: str(text[:30]))
def test_a_file_of_another_shape_ends_in_a_sentence(
    file: str, content: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"run{seed}", config_of("baseline", seed), evaluation_of([0.5, 1.0]))
    path = tmp_path / "run1" / file
    lines = [content, b'\n{"step": 1}\n'] if file.endswith("l") else [content]
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    runs = [str(tmp_path / f"run{seed}") for seed in (1, 2)]
    page = ["--output", str(tmp_path / "page.html"), "--no-chunks"]
    evaluated = [["evaluate", runs[0]]] if file == "config.yaml" else []
    for words in (["compare", *runs], ["report", *runs, *page], *evaluated):
        status = main(words)
        said = capsys.readouterr().err.strip().splitlines()
        assert status == 0 or (status == 2 and said[-1].startswith("policy-accel: ")), words
