"""The folder of a sweep: its record, and how runs stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policy_accel.errors import UserError
from policy_accel.sweep.folder import AT_ONCE, Job, Run, Sweep, open_folder, read_sweep
from policy_accel.sweep.job import perform


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    sweep = Sweep(tmp_path / "sweep", {"a": Run(["seed=1"], 5), "b": Run([], 7)}, threads=2, directory=str(tmp_path))
    sweep.write()
    return sweep


def test_the_record_says_what_the_sweep_is(sweep: Sweep) -> None:
    assert read_sweep(sweep.folder) == sweep
    (sweep.folder / "sweep.json").write_text('{"runs": 3}')
    with pytest.raises(UserError, match=r"sweep\.json is damaged \(AttributeError\); choose another sweep_dir"):
        read_sweep(sweep.folder)
    with pytest.raises(UserError, match=r"nowhere is not the folder of a sweep: it has no sweep\.json"):
        read_sweep(sweep.folder / "nowhere")


def test_other_files_and_other_processes_are_left_alone(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    with pytest.raises(UserError, match=r"mine is not empty and is not a sweep of ours"):
        open_folder(tmp_path / "mine", lambda old: sweep)
    found, lock = open_folder(sweep.folder, lambda old: old or sweep)
    assert found == sweep
    with pytest.raises(UserError, match=r"Another process works on sweep_dir=.*sweep --status "):
        open_folder(sweep.folder, lambda old: sweep)
    lock.close()
    open_folder(sweep.folder, lambda old: sweep)[1].close()


def test_a_run_that_nobody_looks_after_is_stopped(sweep: Sweep) -> None:
    assert sweep.job("a") == Job()
    job = Job("running", started=3.0, first_step=2)
    with sweep.hold("a"):
        sweep.note("a", job)
        assert sweep.job("a") == job
    assert sweep.job("a") == Job("stopped", started=3.0, first_step=2)


def test_a_run_that_ends_while_one_looks_is_not_called_stopped(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as running, then notes how it ended and lets go of its lock, which is then found free."""
    sweep.note("a", Job("running", started=3.0))
    ended = Job("done", started=3.0, ended=4.0)

    def let_go(_: Path) -> bool:
        sweep.note("a", ended)
        return False

    monkeypatch.setattr("policy_accel.sweep.folder._is_held", let_go)
    assert sweep.job("a") == ended


def test_going_on_forgets_failures_and_the_wish_to_stop(sweep: Sweep) -> None:
    sweep.note("a", Job("done", started=1.0))
    sweep.note("b", Job("running", started=1.0))
    sweep.fail("a", "no")  # it is known how it ended
    sweep.fail("b", "it went wrong.")
    assert (sweep.job("a").state, sweep.job("b").said) == ("done", "it went wrong.")
    sweep.ask_to_stop(AT_ONCE)
    assert sweep.stop_asked() == AT_ONCE
    sweep.go_on()
    assert sweep.stop_asked() == ""
    assert (sweep.job("a").state, sweep.job("b").state) == ("done", "waiting")


def test_a_run_does_not_begin_while_the_sweep_is_stopped_or_when_it_is_done(sweep: Sweep) -> None:
    sweep.ask_to_stop()
    assert perform(str(sweep.folder), "a", {}) == "stopped"
    sweep.note("b", Job("done"))
    assert perform(str(sweep.folder), "b", {}) == "done"
    assert not sweep.log("a").exists()
    assert not sweep.log("b").exists()


@pytest.mark.parametrize(
    ("code", "state", "said"),
    [
        ("print('policy-accel: a=1 is wrong.', flush=True); print('more'); sys.exit(2)", "failed", r"a=1 is wrong\."),
        ("raise MemoryError('none left')", "failed", r"MemoryError: none left \(exit status 1; its log is .*a\.log\)"),
        ("os.kill(os.getpid(), 9)", "failed", r"it was ended by signal 9 \(Killed\); its log is .*a\.log\."),
        ("sys.exit(130)", "stopped", ""),
        ("print(os.environ['OMP_NUM_THREADS'], os.environ['MORE'], os.getcwd(), *sys.argv[2:])", "done", ""),
    ],
)
def test_how_a_run_ends(code: str, state: str, said: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.sweep.job.START", f"import os, sys; {code}")
    assert perform(str(sweep.folder), "a", {"MORE": "given"}) == state
    job = sweep.job("a")
    assert job.state == state
    assert re.fullmatch(said, job.said)
    assert job.ended >= job.started > 0
    if state == "done":
        expected = f"2 given {sweep.directory} train seed=1 run_dir='{sweep.folder / 'a'}'"
        assert sweep.log("a").read_text().splitlines()[-1] == expected


def test_a_run_that_is_asked_to_stop_saves_or_ends_at_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: {}); {}; time.sleep(60)"
    for how, handler in (("save first", "sys.exit(130)"), (AT_ONCE, "None")):
        wish = f"open({str(sweep.folder / 'stop')!r}, 'w').write({how!r})"
        monkeypatch.setattr("policy_accel.sweep.job.START", code.format(handler, wish))
        sweep.go_on()
        assert perform(str(sweep.folder), "a", {}) == "stopped"
