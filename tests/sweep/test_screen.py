"""What is shown of a sweep, worked out by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from policy_accel.progress import Progress
from policy_accel.sweep.folder import Job, Run, Sweep
from policy_accel.sweep.screen import Screen, summary, table
from policy_accel.sweep.standing import Logged, Standing, logged, rate_of, seconds_left, standings


def standing(name: str, job: Job, step: int = 0, rate: float = 0.0, score: float | None = None) -> Standing:
    return Standing(name, job, Logged(step, rate), 100, score)


RUNS = [
    standing("kl-seed1", Job("done", started=100.0, ended=150.0), 100, 9.0, 0.9123),
    standing("kl-seed2", Job("running", started=150.0, first_step=20), 60, 2.5),
    standing("clts", Job("running", started=180.0), 100, 4.0),
    standing("kl-seed3", Job("failed", "lr=9 is wrong.", 100.0, 101.0)),
    standing("flow", Job()),
]


def test_time_left_and_rate() -> None:
    """The one that is done took 50 s for 100 updates. At 200 kl-seed2 has 40 updates left, 20 s; clts, which is being
    scored, 30 of its 50 s; flow all of its 50 s; two at once."""
    assert seconds_left(RUNS, now=200.0) == pytest.approx((20 + 30 + 50) / 2)
    assert seconds_left(RUNS[:2], now=160.0) == pytest.approx(0.5 * (100 - 20) - 10)
    assert rate_of(RUNS) == 2.5  # the one at its end is being scored
    assert seconds_left(RUNS[3:]) is None
    assert seconds_left(RUNS[2:4], now=300.0) is None


def test_time_left_is_unknown_before_an_update_and_does_not_grow_while_nothing_is_counted() -> None:
    first = [standing("a", Job("running", started=0.0)), standing("b", Job())]
    assert [seconds_left(first, now) for now in (1.0, 100.0)] == [None, None]
    first[0] = standing("a", Job("running", started=0.0), 40, 2.0)
    assert [seconds_left(first, now) for now in (40.0, 90.0)] == [pytest.approx((60 + 100) / 2.0)] * 2
    second = [standing("a", Job("done", started=0.0, ended=80.0), 100), standing("b", Job("running", started=80.0))]
    assert [seconds_left(second, now) for now in (80.0, 90.0, 300.0)] == [pytest.approx(80.0)] * 3
    second[1] = standing("b", Job("running", started=80.0), 100, 2.0)
    assert [seconds_left(second, now) for now in (140.0, 150.0, 170.0)] == [20.0, 10.0, None]


def test_the_table_says_how_each_run_stands() -> None:
    assert summary(RUNS, now=200.0) == "5 runs: 1 done, 2 running, 1 waiting, 1 failed, 2.5 updates/s, 0:50 left"
    assert table(RUNS) == [
        "  kl-seed1  done     100 updates, score 0.912",
        "  kl-seed2  running  60/100, 2.5 updates/s",
        "  clts      running  100/100, scoring",
        "  kl-seed3  failed   lr=9 is wrong.",
        "  flow      waiting",
    ]
    assert table(RUNS, lines=4) == [*table(RUNS)[1:4], "  and 2 more"]
    assert table([standing("a", Job("running"))]) == ["  a  running  starting"]
    assert table([standing("a", Job("stopped"), 40)]) == ["  a  stopped  40/100"]
    assert summary([standing("a", Job("running"))]) == "1 run: 1 running, time left unknown"
    hours = [standing("a", Job("running", started=1.0), 1, 0.01)]
    assert summary(hours, now=101.0).endswith("0.0 updates/s, 2:45:00 left")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    sweep = Sweep(tmp_path, {"a": Run([], 100), "b": Run([], 100)})
    sweep.write()
    return sweep


def test_progress_is_read_from_the_files_of_the_runs(sweep: Sweep) -> None:
    row = {"step": 30, "steps_per_second": 4.5, "loss": 1.0}
    sweep.run_dir("a").mkdir()
    text = "".join(json.dumps(each) + "\n" for each in ({**row, "step": 10}, row, {"step": 40, "score": 0.5}))
    (sweep.run_dir("a") / "metrics.jsonl").write_text(text + '{"step": 50, "steps_per')
    (sweep.run_dir("a") / "evaluation.json").write_text('{"score": 0.25}')
    assert logged(sweep.run_dir("a")) == Logged(30, 4.5)
    (a, b) = standings(sweep)
    assert (a.logged, a.score, a.updates) == (Logged(30, 4.5), 0.25, 100)
    assert (b.logged, b.score) == (Logged(), None)


def test_updates_are_counted_as_they_are_printed_between_the_rows_of_the_metrics(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr("policy_accel.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    Progress("train", 100).advance(70, "loss 1")
    line = capsys.readouterr().err
    sweep.log("a").write_text(f"$ policy-accel train\n{line}score: 3/50 episodes, 0.1/s, 0:40 left\n")
    assert standings(sweep)[0].logged == Logged(70, 3.5)
    with open(sweep.log("a"), "a") as log:
        log.write("$ policy-accel train\n")  # another attempt, from a checkpoint
    assert standings(sweep)[0].logged == Logged()
    sweep.run_dir("a").mkdir()
    (sweep.run_dir("a") / "metrics.jsonl").write_text('{"step": 80, "steps_per_second": 4.0}\n')
    assert standings(sweep)[0].logged == Logged(80, 4.0)


def test_runs_that_are_done_are_not_read_again(sweep: Sweep) -> None:
    sweep.note("a", Job("done", started=1.0))
    sweep.note("b", Job("stopped", started=1.0))
    output = io.StringIO()
    screen = Screen(sweep, output)
    screen.show()
    sweep.note("a", Job("failed", "nobody sees it."))
    sweep.note("b", Job("failed", "no."))
    screen.show()
    assert output.getvalue().splitlines() == [
        "sweep: a done: 100 updates",
        "sweep: b stopped: ",
        "sweep: b failed: no.",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_drawn_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    output = Terminal()
    screen = Screen(sweep, output)
    screen.show()
    screen.say("Stopping.")
    screen.show()
    sweep.note("b", Job("failed", "a long sentence that does not fit", 1.0, 2.0))
    screen.show()
    drawn = "2 runs: 2 waiting\n  a  waiting\n  b  waiting\n"
    again = "2 runs: 1 waiting, 1 failed\n  a  waiting\n  b  failed   a long sentence\n"
    assert output.getvalue() == f"{drawn}\x1b[3F\x1b[JStopping.\n{drawn}\x1b[3F\x1b[J{again}"


def test_elsewhere_a_line_says_what_has_changed(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    screen = Screen(sweep, output)
    screen.show()
    sweep.note("b", Job("failed", "no.", 1.0, 2.0))
    screen.show()
    screen.show()
    assert output.getvalue() == "sweep: b failed: no.\n"
    monkeypatch.setattr(screen, "_next", 0.0)
    screen.show()
    assert output.getvalue().splitlines()[1:] == ["sweep: 2 runs: 1 waiting, 1 failed"]
