import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from toy_environments import act

from policy_accel.evaluation import EnvironmentSpec, RolloutPool, processes

SEEDS = [5, 3, 11, 0, 7, 42, 8]


@contextmanager
def limits(timeout, first_timeout):
    """How long a worker is waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "CHUNK_TIMEOUT", timeout)
        patch.setattr(processes, "FIRST_TIMEOUT", first_timeout)
        yield


def run(folder, trouble, *, workers=2, timeout=60.0, first_timeout=60.0, slots=4, **options):
    spec = EnvironmentSpec("toy/Walk-v0", {"trouble": trouble, "folder": str(folder)}, 20, 2, "toy_environments")
    with limits(timeout, first_timeout), closing(RolloutPool(spec, slots=slots, workers=workers)) as pool:
        return pool.run(act, SEEDS, **options)


@pytest.fixture(scope="module")
def untroubled(tmp_path_factory):
    results = run(tmp_path_factory.mktemp("untroubled"), {}, workers=0)
    assert all(result.error is None and result.length > 2 for result in results)
    return results


def attempts(folder, seed):
    return (folder / f"trouble-{seed}").stat().st_size


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def worker_ids(folder):
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["exit", "kill", "raise"])
@pytest.mark.parametrize("step", [0, 2])
def test_an_episode_that_fails_once_is_repeated(tmp_path, untroubled, kind, step):
    assert run(tmp_path, {3: (kind, step, 1)}) == untroubled
    assert attempts(tmp_path, 3) == 2


def test_a_worker_whose_child_lives_on(tmp_path, untroubled):
    begin = time.monotonic()
    assert run(tmp_path, {3: ("exit-with-child", 2, 1)}) == untroubled
    assert time.monotonic() - begin < 30
    (child,) = (int(path.name.removeprefix("child-")) for path in tmp_path.glob("child-*"))
    os.kill(child, signal.SIGKILL)


def test_an_episode_is_repeated_before_new_ones_start(tmp_path):
    spec = EnvironmentSpec(
        "toy/Walk-v0", {"trouble": {3: ("raise", 2, 1)}, "folder": str(tmp_path)}, 20, 2, "toy_environments"
    )
    rounds = []

    def recorded(observations, seeds, chunk_index):
        rounds.append(list(zip(seeds.tolist(), chunk_index.tolist(), strict=True)))
        return act(observations, seeds, chunk_index)

    with closing(RolloutPool(spec, slots=4, workers=0)) as pool:
        pool.run(recorded, SEEDS)
    assert rounds[:2] == [[(5, 0), (3, 0), (11, 0), (0, 0)], [(5, 1), (3, 0), (11, 1), (0, 1)]]


def test_modules_in_the_working_directory_do_not_break_the_workers(tmp_path, monkeypatch, untroubled):
    (tmp_path / "gymnasium.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, {}) == untroubled


@pytest.mark.parametrize(
    ("kind", "workers", "reason"),
    [
        ("exit", 2, "the worker process died (exit status 3)"),
        ("kill", 2, "the worker process died (signal 9: Killed)"),
        ("raise", 2, "RuntimeError: the table fell over"),
        ("raise", 0, "RuntimeError: the table fell over"),
        ("nan-reward", 1, "ValueError: the reward of step 1 is nan"),
        ("nan-observation", 1, "ValueError: the observation after step 0 has a NaN or infinite value"),
    ],
)
def test_an_episode_that_always_fails_is_reported_and_the_rest_goes_on(tmp_path, untroubled, kind, workers, reason):
    counts = []
    trouble = {3: (kind, 2, 99)}
    results = run(tmp_path, trouble, workers=workers, progress=lambda done, total: counts.append(done))
    assert counts == list(range(1, len(SEEDS) + 1))
    failed = results.pop(1)
    assert (failed.seed, failed.score, failed.success, failed.length) == (3, 0.0, False, 0)
    assert failed.error == reason
    assert results == untroubled[:1] + untroubled[2:]
    if not kind.startswith("nan"):
        assert attempts(tmp_path, 3) == 2


def test_neighbours_of_a_crash_are_not_blamed(tmp_path, untroubled):
    """All in one worker, which dies eight times: each episode is blamed for its own deaths only."""
    trouble = {seed: ("exit", step, 99) for seed, step in ((3, 1), (11, 2), (0, 0), (8, 2))}
    results = run(tmp_path, trouble, workers=1)
    assert [result.seed for result in results if result.error] == [3, 11, 0, 8]
    assert [attempts(tmp_path, seed) for seed in trouble] == [2, 2, 2, 2]
    good = [index for index, seed in enumerate(SEEDS) if seed not in trouble]
    assert [results[index] for index in good] == [untroubled[index] for index in good]


def test_an_exception_beside_a_crash_counts(tmp_path, untroubled):
    """Slots 0 and 1 of one worker: the first raises, then the second kills the process, in the same round."""
    results = run(tmp_path, {5: ("raise", 2, 2), 3: ("exit", 2, 1)}, workers=1)
    assert results[0].error == "RuntimeError: the table fell over"
    assert results[1:] == untroubled[1:]
    assert attempts(tmp_path, 5) == 2


def test_a_hanging_episode(tmp_path, untroubled):
    results = run(tmp_path, {11: ("hang", 1, 1), 42: ("hang", 2, 99)}, timeout=1.0, first_timeout=1.0)
    assert results.pop(5).error == "no answer within 1 s"
    assert results == untroubled[:5] + untroubled[6:]
    assert not any(alive(pid) for pid in worker_ids(tmp_path))


def test_the_first_chunk_of_a_process_may_take_longer():
    spec = EnvironmentSpec("toy/Slow-v0", {}, 3, 1, "toy_environments")
    for patience, errors in ((60.0, [None, None]), (0.5, ["no answer within 1 s"] * 2)):
        with limits(1.0, patience), closing(RolloutPool(spec, slots=1, workers=1)) as pool:
            results = pool.run(lambda *_: np.zeros((1, 1, 2)), [1, 2])
        assert [result.error for result in results] == errors


def test_a_worker_killed_between_rounds(tmp_path, untroubled):
    spec = EnvironmentSpec("toy/Walk-v0", {"folder": str(tmp_path)}, 20, 2, "toy_environments")
    calls = []

    def killing(observations, seeds, chunk_index):
        calls.append(0)
        if len(calls) == 2:
            victim = worker_ids(tmp_path)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: not alive(victim))
        return act(observations, seeds, chunk_index)

    with closing(RolloutPool(spec, slots=4, workers=2)) as pool:
        assert pool.run(killing, SEEDS) == untroubled
    assert len(worker_ids(tmp_path)) == 3


def test_close_ends_the_workers(tmp_path):
    spec = EnvironmentSpec("toy/Walk-v0", {"folder": str(tmp_path)}, 20, 2, "toy_environments")
    pool = RolloutPool(spec, slots=2, workers=2)
    pool.run(act, SEEDS)
    ids = worker_ids(tmp_path)
    assert len(ids) == 2
    assert all(alive(pid) for pid in ids)
    pool.close()
    assert not any(alive(pid) for pid in ids)


def test_an_error_of_the_policy_ends_the_workers(tmp_path, untroubled):
    spec = EnvironmentSpec("toy/Walk-v0", {"folder": str(tmp_path)}, 20, 2, "toy_environments")

    def broken(observations, seeds, chunk_index):
        raise ArithmeticError("no")

    with closing(RolloutPool(spec, slots=2, workers=2)) as pool:
        with pytest.raises(ArithmeticError):
            pool.run(broken, SEEDS)
        assert len(worker_ids(tmp_path)) == 2
        assert not any(alive(pid) for pid in worker_ids(tmp_path))
        assert pool.run(act, SEEDS) == untroubled


SCRIPT = """
import signal, sys
from contextlib import closing
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background, which ignores Ctrl-C
sys.path.insert(0, {tests!r})
from policy_accel.evaluation import EnvironmentSpec, RolloutPool
spec = EnvironmentSpec("toy/Walk-v0", {kwargs!r}, 10**9, 2, "toy_environments")
import numpy as np
open({folder!r} + "/started", "a").write("x")
with closing(RolloutPool(spec, slots=2, workers=2)) as pool:
    pool.run(lambda *_: np.zeros((2, 4, 2)), [1, 2])
"""


@pytest.mark.parametrize("kind", ["walk", "hang"])
@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGKILL])
def test_no_orphans(tmp_path, kind, signal_sent):
    """Ctrl-C or a kill of a script without a main guard, whose environments walk on for ever or hang."""
    trouble = {1: ("hang", 2, 99)} if kind == "hang" else {}
    kwargs = {"lasts": 10**9, "folder": str(tmp_path), "trouble": trouble}
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent), kwargs=kwargs, folder=str(tmp_path)))
    script = subprocess.Popen([sys.executable, path], start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(worker_ids(tmp_path)) == 2)
    ids = worker_ids(tmp_path)
    time.sleep(0.3)
    os.killpg(script.pid, signal_sent)
    _, messages = script.communicate(timeout=120)
    assert messages.count("Traceback") == (signal_sent == signal.SIGINT), "only the script's own"
    wait_until(lambda: not any(alive(pid) for pid in ids), seconds=10)
    assert (tmp_path / "started").read_text() == "x", "the workers do not run the script"
