"""Do the tests notice? Changes the core in one place at a time and runs the tests that should fail.

    python benchmarks/mutation_check.py                              # all of `mutations/`, into results/
    python benchmarks/mutation_check.py --only samplers.py           # some of them, printed only

The checkout is copied first and never changed. Every mutation is tested in a process of its own, forked from this one
after the slow imports. Exit status 1 when a mutation survives; a mutation whose old text is not found exactly once, or
whose tests fail without it, ends the check at once.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from mutations import MUTATIONS, Mutation

CHECKOUT = Path(__file__).resolve().parents[1]
SLOW_IMPORTS = (
    "torch",
    "scipy.stats",
    "hydra",
    "zarr",
    "gymnasium",
    "h5py",
    "diffusers",
    "matplotlib.figure",
    "pytest",
)
TIMEOUT = 300
PASSED, FAILED = 0, 1


class FirstFailure:
    """A pytest plugin that keeps the name of the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        self.pytest_runtest_logreport(report)


def copy_checkout(base: Path) -> None:
    """Copy what git knows of or would add; the packages that lie beside policy_accel are linked into it."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, cwd=CHECKOUT, text=True).split("\0")):
        if (CHECKOUT / name).is_file():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, base / name)
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    for package, folder in settings["tool"]["setuptools"]["package-dir"].items():
        (base / package.replace(".", "/")).symlink_to(base / folder)


def mutated(base: Path, tree: Path, mutation: Mutation | None) -> None:
    """Make `tree` a copy of `base` with one mutation in it."""
    for path in base.iterdir():
        if path.name == "policy_accel":
            shutil.copytree(path, tree / path.name, symlinks=True)
        else:
            (tree / path.name).symlink_to(path)
    if mutation is not None:
        file = tree / "policy_accel" / mutation.file
        file.write_text(file.read_text().replace(mutation.old, mutation.new))


def run_tests(task: tuple[Path, Mutation | None, tuple[str, ...]]) -> tuple[int, str, float]:
    """Run `tests` on the checkout with a mutation: pytest's exit status, the first failure, seconds."""
    base, mutation, tests = task
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # tests start processes
    began, first = time.perf_counter(), FirstFailure()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        mutated(base, tree, mutation)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)
        signal.signal(signal.SIGALRM, _out_of_time)
        signal.alarm(TIMEOUT)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(tree), "-c", str(tree / "pyproject.toml")]
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            status = int(pytest.main([*options, *tests], plugins=[first]))
        signal.alarm(0)
        import policy_accel

        assert Path(policy_accel.__file__).is_relative_to(tree), policy_accel.__file__
        os.chdir(base)
    return status, first.name, round(time.perf_counter() - began, 1)


def _out_of_time(*_: Any) -> None:
    raise TimeoutError(f"more than {TIMEOUT} seconds")


def check_texts(base: Path, mutations: list[Mutation]) -> None:
    """End the check unless every old text is found exactly once."""
    lost = []
    for mutation in mutations:
        count = (base / "policy_accel" / mutation.file).read_text().count(mutation.old)
        if count != 1:
            lost.append(f"{mutation.file}: found {count} times: {mutation.old}")
    if lost:
        sys.exit("\n".join(["These mutations do not fit the code; write them anew.", *lost]))


def tasks_of(tests: tuple[str, ...], chosen: list[Mutation]) -> list[tuple[Mutation | None, tuple[str, ...]]]:
    """Run the tests without a mutation, then with each of those that they should notice."""
    return [(None, tests), *((mutation, tests) for mutation in chosen if mutation.tests == tests)]


def described(row: dict[str, Any]) -> str:
    fate = "SURVIVED" if row["killed_by"] is None else f"killed by {row['killed_by'].removeprefix('tests/')}"
    return f"{row['file']}: {row['old']!r} -> {row['new']!r}: {fate} ({row['seconds']} s)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutations whose file or old text holds this")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--output", type=Path, help="where the record goes; results/mutation_check.json for all of them"
    )
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if options.only in m.file or options.only in m.old]
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    sys.dont_write_bytecode = True  # else a mutation of equal length within a second finds the old bytecode
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        copy_checkout(base)
        check_texts(base, chosen)
        for name in SLOW_IMPORTS:
            importlib.import_module(name)
        gc.freeze()  # or every test session walks through what was imported here
        tasks = [task for tests in dict.fromkeys(m.tests for m in chosen) for task in tasks_of(tests, chosen)]
        with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
            results = pool.imap(run_tests, [(base, *task) for task in tasks])
            for (mutation, tests), (status, first, seconds) in zip(tasks, results, strict=True):
                if status not in (PASSED, FAILED):
                    sys.exit(f"The tests of {mutation or tests} do not run, pytest's status {status}: {first}")
                if mutation is not None:
                    rows.append(
                        {**vars(mutation), "killed_by": None if status == PASSED else first, "seconds": seconds}
                    )
                    print(described(rows[-1]), flush=True)
                elif status != PASSED:
                    sys.exit(f"{first} fails without any mutation.")
    survivors = [row for row in rows if row["killed_by"] is None]
    print(f"{len(rows)} mutations, {len(rows) - len(survivors)} killed, {len(survivors)} survived")
    if options.output or not options.only:
        from results import RESULTS, write_result  # imports the package, which the forked processes must not find

        write_result(
            options.output or RESULTS / "mutation_check.json",
            {"mutations": len(rows), "killed": len(rows) - len(survivors), "survivors": survivors, "rows": rows},
        )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
