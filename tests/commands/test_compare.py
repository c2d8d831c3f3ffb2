from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.scored_runs import config_of, evaluation_of, write_arms, write_run, write_sweep

from policy_accel.cli import main


def arms() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.uniform(0.2, 1.0, (3, 20)) for name in ("baseline", "kl")} | {"bad": np.zeros((3, 20))}


def test_a_sweep_to_the_screen_and_to_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "s", arms(), waiting=["kl-seed4"])
    files = [str(tmp_path / "out" / f"c.{form}") for form in ("json", "csv", "png")]
    assert main(["compare", str(sweep), "--json", files[0], "--csv", files[1], "--png", files[2]]) == 0
    said = capsys.readouterr().out
    table, sentences, notes, summary = said.rstrip("\n").split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["baseline", "kl", "bad"]
    assert sentences.splitlines()[1].startswith("bad is worse than baseline by")
    assert notes == "Left out, without a score: kl-seed4 (not begun)."
    assert summary.startswith("Worse than baseline: bad. No difference of any other arm from baseline can be told")
    record = json.loads(Path(files[0]).read_text())
    assert record["summary"] == summary
    rows = list(csv.DictReader(Path(files[1]).read_text().splitlines()))
    assert [float(row["mean"]) for row in rows] == [arm["mean"] for arm in record["arms"]]
    assert f"{record['arms'][1]['mean']:.3f}" in table.splitlines()[3]
    with Image.open(files[2]) as picture:
        assert picture.format == "PNG"
    assert main(["compare", str(sweep), "--json", files[0], "--csv", files[1], "--png", files[2]]) == 0  # its own files


def test_options_reach_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run) for run in write_arms(tmp_path, arms())]
    lift = write_run(tmp_path / "lift", config_of(task__name="lift"), evaluation_of([1.0] * 20))
    out = tmp_path / "c.json"
    words = ["compare", *runs, str(lift), "--task", "pusht_state", "--baseline", "bad", "--measure", "success"]
    assert main([*words, "--confidence", "0.9", "--difference", "0.2", "--pooled", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [found[key] for key in ("baseline", "measure", "confidence", "difference", "pooled")] == [
        "bad",
        "success",
        0.9,
        0.2,
        True,
    ]
    assert "success (higher is better)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--confidence", "95"], "--confidence 95 must lie between 0 and 1"),
        (["--difference", "-1"], "--difference -1 must be above 0"),
        (["--difference", "0"], "--difference 0 must be above 0"),
        (["--task", "pusht_stat"], "--task 'pusht_stat' is no task of these runs; did you mean 'pusht_state'?"),
        (["--checkpoint", "7"], "none of the runs has a score (9 more without one: "),
        (["--baseline", "kll"], "--baseline 'kll' is no arm of these runs; did you mean 'kl'?"),
        (["--json", "link"], "link: is a symbolic link, which is not followed"),
        (["--png", "."], ".: is a folder; give the path of a file in it."),
        (["--json", "mine", "--csv", "./mine"], "mine is given for two files; choose another name for one of them."),
        (
            ["--json", "s/kl-seed1/evaluation.json"],
            "s/kl-seed1/evaluation.json: exists, was not made by compare and is",
        ),
        (["--json", "notes.sh"], "notes.sh: exists, was not made by compare and is not overwritten"),
        (["--csv", "file/c.csv"], "file/c.csv: cannot write it, a file stands where a folder is needed"),
        (["nowhere"], "nowhere is neither a run directory (no config.yaml) nor the folder of a sweep (no sweep.json)"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = write_sweep(tmp_path / "s", arms())
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("notes.sh").write_text("policy-accel compare s\n")
    Path("link").symlink_to("file")
    assert main(["compare", str(sweep), *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"policy-accel: {said}")
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert Path("file").read_text() == ""


def test_the_example_of_the_page(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of docs/how_to/compare.md runs, on a sweep of that name."""
    page = (repository / "docs" / "how_to" / "compare.md").read_text()
    monkeypatch.chdir(tmp_path)
    write_sweep(Path("runs/sweeps/pusht_keypoints-method-seed"), arms())
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    compared = [shlex.split(line)[1:] for line in lines if line.startswith("policy-accel compare")]
    assert len(compared) >= 2
    for words in compared:
        assert main(words) == 0
    assert Path("comparison.png").is_file()
