"""The ledger of results: what it takes, what it refuses, and that nothing in it changes."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
RECORD: dict[str, Any] = {
    "format": 1,
    "id": "toy",
    "kind": "compare",
    "date": "2026-11-29",
    "command": "policy-accel compare runs/sweeps/toy",
    "commit": "0123abc",
    "hardware": {"cpu": "some", "cores": 2},
    "versions": {"torch": "2.9.0"},
    "task": "two_modes",
    "seeds": [1, 2],
    "episodes": 50,
    "result": [
        {"figure": "score, kl", "value": 0.5, "interval": [0.25, 0.75], "why": ""},
        {"figure": "score, kl less baseline", "value": None, "interval": None, "why": "one | seed"},
    ],
    "note": "Nothing can be told.",
}
COMPARISON: dict[str, Any] = {
    "task": "two_modes",
    "measure": "score",
    "baseline": "baseline",
    "evaluation_seeds": [5, 6, 7],
    "arms": [
        {"name": "baseline", "runs": {"1": 0.5, "2": 0.6}, "mean": 0.55, "interval": [0.5, 0.6]},
        {"name": "kl", "runs": {"1": 0.5, "3": 0.7}, "mean": 0.6, "interval": None},
    ],
    "differences": [{"arm": "kl", "value": 0.05, "interval": [-0.1, 0.2], "corrected": 0.3}],
}
COST = {"mean": 100.0, "interval": [80.0, 120.0], "why": ""}
RATIO = {**COST, "ratio": 0.5, "ratio_interval": None, "ratio_why": "one training seed"}
TIME_TO_SCORE: dict[str, Any] = {
    "command": "policy-accel benchmark time-to-score toy.yaml",
    "date": "2026-01-02",
    "hardware": {"cpu": "theirs"},
    "versions": {"torch": "1"},
    "confidence_of_a_checkpoint": 0.99,
    "plan": {"baseline": "baseline", "seeds": [4], "scoring": {"most": 300}},
    "tasks": {
        "two_modes": {
            "targets": {
                "0.8": {
                    "baseline": {"reached": 1, "runs": 1, "costs": {"updates": COST, "network_evaluations": COST}},
                    "kl": {"reached": 1, "runs": 1, "costs": {"updates": RATIO, "network_evaluations": RATIO}},
                }
            },
            "budgets": {
                "50": {
                    "baseline": {"score": 0.4, "interval": None},
                    "kl": {"score": 0.6, "interval": [0.5, 0.7], "difference": 0.2, "difference_interval": [0.1, 0.3],
                           "p_holm": 0.0001},
                }
            },
        }
    },
}  # fmt: skip


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return importlib.import_module("ledger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records below git, with one that is committed."""
    records = tmp_path / "records"
    records.mkdir()
    write(records, RECORD)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return records


def git(place: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True)


def commit(place: Path) -> None:
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "more")


def write(folder: Path, record: dict[str, Any]) -> Path:
    path = folder / f"{record['id']}.json"
    path.write_text(json.dumps(record))
    return path


def checked(ledger: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `check` says is wrong; empty where nothing is."""
    capsys.readouterr()
    status = ledger.main(["--records", str(folder), "check"])
    said = capsys.readouterr().out
    assert status == (0 if "as it should be" in said else 1)
    return "" if status == 0 else said


def test_the_ledger_of_this_repository_is_whole_and_on_its_page(
    ledger: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(ledger, ledger.RECORDS, capsys) == ""
    page = ledger.PAGE.read_text()
    records = [record for _, record in ledger.read_records(ledger.RECORDS)]
    assert ledger.with_table(page, records) == page, "run `python benchmarks/ledger.py table`"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"note": ""}, "toy.json has an empty note"),
        ({"extra": 1}, "toy.json has an unknown key 'extra'"),
        ({"seeds": "1"}, "toy.json: seeds is '1', which is no list"),
        ({"seeds": []}, "the training seeds []; give at least one"),
        ({"episodes": True}, "episodes is True, which is no int"),
        ({"date": "soon"}, "has the date 'soon'"),
        ({"commit": "HEAD"}, "has the commit 'HEAD'; give its hash"),
        ({"kind": "guess"}, "is of kind 'guess'"),
        ({"format": 2}, "has format 2"),
        ({"command": "policy-accel compare /home/me/runs"}, "a path of one machine"),
        ({"command": "policy-accel train task.data=/tmp/x"}, "a path of one machine"),
        ({"result": []}, "toy.json has an empty result"),
        ({"result": [{"figure": "x", "value": 1}]}, "a figure must have figure, interval, value, why"),
        ({"result": [{"figure": "x", "value": 1, "interval": None, "why": ""}]}, "x has no interval and no reason why"),
        ({"result": [{"figure": "x", "value": None, "interval": None, "why": ""}]}, "x has no value and no reason"),
        ({"result": [{"figure": "x", "value": 1, "interval": [2, 0], "why": ""}]}, "x has the interval [2, 0]"),
        ({"result": [{"figure": "x", "value": float("nan"), "interval": [0, 1], "why": ""}]}, "x is nan"),
    ],
)
def test_a_bad_record_is_named(
    ledger: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], said: str
) -> None:
    write(tmp_path, RECORD | changed)
    assert said in checked(ledger, tmp_path, capsys)


def test_a_record_that_lacks_a_field_or_has_another_name(
    ledger: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, RECORD)
    path.write_text(json.dumps({key: value for key, value in RECORD.items() if key != "hardware"}))
    assert "toy.json has no hardware" in checked(ledger, tmp_path, capsys)
    write(tmp_path, RECORD).rename(tmp_path / "other.json")
    assert "other.json has the id 'toy'" in checked(ledger, tmp_path, capsys)
    (tmp_path / "other.json").write_text("{")
    assert ledger.main(["--records", str(tmp_path), "check"]) == 2
    assert "other.json is not JSON" in capsys.readouterr().err


def test_records_are_only_added(ledger: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "toy.json"
    whole = path.read_text()
    write(folder, RECORD | {"id": "second"})
    assert checked(ledger, folder, capsys) == "", "one that is new"
    path.write_text(whole.replace("0.5", "0.9"))
    assert "toy.json is not as it was committed" in checked(ledger, folder, capsys)
    path.unlink()
    assert "toy.json is not as it was committed" in checked(ledger, folder, capsys)
    path.write_text(whole)
    assert checked(ledger, folder, capsys) == ""


@pytest.mark.parametrize("how", ["changed", "removed", "renamed"])
def test_a_commit_that_changes_a_record_is_found_later(
    ledger: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = folder / "toy.json"
    if how == "changed":
        path.write_text(path.read_text().replace("0.25", "0.3"))
    elif how == "removed":
        path.unlink()
    else:
        path.unlink()
        write(folder, RECORD | {"id": "better"})
    commit(folder.parent)
    assert "toy.json was changed or removed by a commit" in checked(ledger, folder, capsys)


def added(ledger: ModuleType, place: Path, result: dict[str, Any], *words: str) -> dict[str, Any]:
    """The record that `add` makes of a result."""
    path = place / "result.json"
    path.write_text(json.dumps(result))
    assert ledger.main(["--records", str(place / "records"), "add", str(path), "--note", "So it is.", *words]) == 0
    (made,) = (place / "records").glob("*.json")
    return dict(json.loads(made.read_text()))


def test_a_comparison_becomes_a_record(ledger: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = added(
        ledger, tmp_path, COMPARISON, "--id", "mine", "--command", "policy-accel compare x", "--commit", "abcdef1"
    )
    assert (record["id"], record["kind"], record["seeds"], record["episodes"]) == ("mine", "compare", [1, 2, 3], 3)
    assert record["result"] == [
        {"figure": "score, baseline", "value": 0.55, "interval": [0.5, 0.6], "why": ""},
        {"figure": "score, kl", "value": 0.6, "interval": None, "why": "one run without episodes"},
        {"figure": "score, kl less baseline (p = 0.300)", "value": 0.05, "interval": [-0.1, 0.2], "why": ""},
    ]
    assert record["hardware"]["cores"] > 0
    assert set(record["versions"]) == {"torch", "python"}
    assert checked(ledger, tmp_path / "records", capsys) == ""
    words = ["--records", str(tmp_path / "records"), "add", str(tmp_path / "result.json"), "--note", "Again."]
    capsys.readouterr()
    assert ledger.main([*words, "--id", "mine", "--command", "x"]) == 2
    assert "mine.json: exists already and is not overwritten" in capsys.readouterr().err
    assert ledger.main([*words, "--id", "yours"]) == 2
    assert "does not say which command made it" in capsys.readouterr().err
    assert ledger.main([*words, "--id", "../yours", "--command", "x"]) == 2
    assert "no record was made" in capsys.readouterr().err


LADDER: dict[str, Any] = {
    "command": "python benchmarks/pusht_speedrun.py --data pusht.zip",
    "seeds": [1, 2],
    "episodes": 500,
    "rungs": [
        {"rung": "before", "updates": 1500, "network_evaluations_a_chunk": 8, "score": 0.8,
         "score_interval": [0.7, 0.9], "cpu_seconds": 120.5},
        {"rung": "after", "updates": 1000, "network_evaluations_a_chunk": 2, "score": 0.9,
         "score_interval": [0.85, 0.95], "cpu_seconds": 100.0, "compared_with": "before",
         "difference": 0.1, "difference_interval": [-0.05, 0.25]},
    ],
}  # fmt: skip


def test_a_ladder_becomes_a_record(ledger: ModuleType, tmp_path: Path) -> None:
    record = added(ledger, tmp_path, LADDER, "--commit", "abcdef1", "--id", "ladder")
    assert (record["kind"], record["task"], record["seeds"], record["episodes"]) == (
        "ladder",
        "pusht_keypoints",
        [1, 2],
        500,
    )
    assert [(row["figure"], row["value"], row["interval"], row["why"]) for row in record["result"]] == [
        ("score, before (1500 updates, 8 evaluations a chunk)", 0.8, [0.7, 0.9], ""),
        ("CPU-seconds, before", 120.5, None, "one measurement"),
        ("score, after (1000 updates, 2 evaluations a chunk)", 0.9, [0.85, 0.95], ""),
        ("score, after less before", 0.1, [-0.05, 0.25], ""),
        ("CPU-seconds, after", 100.0, None, "one measurement"),
    ]


def test_a_time_to_score_becomes_a_record(ledger: ModuleType, tmp_path: Path) -> None:
    record = added(ledger, tmp_path, TIME_TO_SCORE, "--commit", "abcdef1")
    assert record["id"] == "two_modes-time-to-score-2026-01-02"
    assert (record["hardware"], record["command"]) == ({"cpu": "theirs"}, TIME_TO_SCORE["command"])
    rows = {row["figure"]: row for row in record["result"]}
    name = "two_modes to 0.8, kl: network evaluations, ratio to baseline"
    assert rows[name] == {"figure": name, "value": 0.5, "interval": None, "why": "one training seed"}
    reached = "two_modes to 0.8, baseline: updates, geometric mean (1 of 1 runs reached it)"
    assert (rows[reached]["value"], rows[reached]["interval"]) == (100.0, [80.0, 120.0])
    less = rows["two_modes, score at 50 updates, kl less baseline (p < .001)"]
    assert (less["value"], less["interval"]) == (0.2, [0.1, 0.3])
    assert len(rows) == 2 * 1 + 2 + 2 + 1


def test_an_evaluation_becomes_a_record(ledger: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 8, "task": {"name": "lift"}}))
    result = {"step": 9, "score": 0.5, "score_interval": [0.4, 0.6], "success_rate": 0.1, "success_interval": [0, 0.2],
              "episodes": [{}, {}]}  # fmt: skip
    record = added(ledger, tmp_path, result, "--command", "policy-accel evaluate runs/lift", "--commit", "abcdef1")
    assert (record["task"], record["seeds"], record["episodes"]) == ("lift", [8], 2)
    assert [row["figure"] for row in record["result"]] == ["score after 9 updates", "success after 9 updates"]


@pytest.mark.parametrize("result", [[], {}, {"score_interval": [0, 1]}, {"differences": []}])
def test_what_is_no_result_is_refused(
    ledger: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], result: Any
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(result))
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert ledger.main(["--records", str(tmp_path / "r"), "add", str(path), "--note", "x", "--command", "x"]) == 2
    assert "x.json is no result of time-to-score, compare or evaluate" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_the_page_is_made_of_the_records(ledger: ModuleType, folder: Path, tmp_path: Path) -> None:
    write(folder, RECORD | {"id": "earlier", "date": "2025-01-01"})
    page = tmp_path / "page.md"
    table = importlib.import_module("ledger_table")
    page.write_text(f"Before.\n{table.BEGIN}\nformerly\n{table.END}\nAfter.\n")
    for _ in range(2):
        assert ledger.main(["--records", str(folder), "table", "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith(f"{table.END}\nAfter.\n")
    assert "formerly" not in text
    assert text.index("## toy") < text.index("## earlier"), "the newest first"
    assert "| score, kl | 0.5 | 0.25 to 0.75 |" in text
    assert "| score, kl less baseline | – | one \\| seed |" in text
    assert "2026-11-29, commit 0123abc, training seeds 1, 2, at most 50 episodes each" in text
    page.write_text("no marks")
    assert ledger.main(["--records", str(folder), "table", "--page", str(page)]) == 2
