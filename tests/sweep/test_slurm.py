"""Sweeps as jobs: submitit's local executor, and what a fake sbatch is handed."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
from support.sweeps import assert_equal_to_undisturbed, examples, prepared, tiny, wait_for, worker_of

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.sweep.folder import Job, read_sweep
from policy_accel.sweep.launcher import SlurmConfig
from policy_accel.sweep.slurm import SlurmLauncher, import_submitit


def test_a_job_that_has_to_make_room_saves_is_queued_again_and_goes_on_with_the_same_bits(place: Path) -> None:
    """The example of the page with one run, in submitit's local executor."""
    words, folder = tiny(examples()[2], seed="3", **{"launcher.cluster": "local"}), Path("runs/sweeps/pusht_state")
    (place / "hold-run").touch()

    def make_room() -> None:
        wait_for((place / "reached-run").exists)
        os.kill(worker_of("run"), signal.SIGUSR2)
        (place / "hold-run").unlink()

    other = threading.Thread(target=make_room)
    other.start()
    assert main(["sweep", *words]) == 0
    other.join()
    log = read_sweep(folder).log("run").read_text()
    assert log.count("$ policy-accel") == 2
    assert "of 8 updates, saved in" in log
    assert_equal_to_undisturbed(read_sweep(folder))


SBATCH = """#!/bin/sh
for file; do :; done
cp "$file" "$PLACE/handed-in"
echo "Submitted batch job 17"
"""


def test_jobs_are_handed_in_with_their_options_and_found_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "bin").mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("srun", "#!/bin/sh\n"),
        ("scancel", '#!/bin/sh\necho "$@" >> "$PLACE/cancelled"\n'),
    ):
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    sacct = (
        '#!/bin/sh\necho "JobID|State|NodeList"\necho "17_0|RUNNING|a"\necho "17_1|RUNNING|a"\necho "17_2|PENDING|a"\n'
    )
    (place / "bin" / "sacct").write_text(sacct)
    (place / "bin" / "sacct").chmod(0o755)
    monkeypatch.setenv("PLACE", str(place))
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    sweep = prepared(tiny(examples()[2], seed="range(3)"))
    config = SlurmConfig(
        partition="gpu", timeout=240, gpus=1, cpus=4, memory=8.0, slots=1, options={"qos": "high"}, requeues=7
    )
    SlurmLauncher(sweep, config).start(list(sweep.runs))
    handed_in = (place / "handed-in").read_text()
    for option in (
        "--partition=gpu",
        "--time=240",
        "--gpus-per-node=1",
        "--cpus-per-task=4",
        "--mem=8GB",
        "--array=0-2%1",
        "--qos=high",
        "--signal=USR2@",
    ):
        assert option in handed_in, option

    (place / "handed-in").unlink()
    later = SlurmLauncher(sweep, config)
    later.start(list(sweep.runs))
    assert not (place / "handed-in").exists()
    sweep.note("seed0", Job("done", started=1.0))
    sweep.note("seed1", Job("running", started=1.0))
    later.withdraw()
    assert (place / "cancelled").read_text() == "17_2\n"
    assert later.under_way()
    sweep.note("seed1", Job("failed", "no.", started=1.0))
    assert not later.under_way()


def test_without_slurm_or_submitit_it_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = prepared(tiny(examples()[2]))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        UserError, match=r"cannot hand in jobs .*; start it where sbatch is, or .*launcher\.cluster=local"
    ):
        SlurmLauncher(sweep, SlurmConfig())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=re.escape(f"launcher=slurm needs the package submitit; {to_install('slurm')}")):
        import_submitit()
