"""The arguments of `policy-accel sweep`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.overview import Readable

DESCRIPTION = """\
Train every combination of the given values, each as a run of `train` in a directory of its own.
All configurations are checked before anything starts. A sweep that was stopped goes on when the same command is
started again: finished runs are left, others go on, failed ones are tried again. The exit status is 1 when a run is
not done at the end.
"""
EPILOG = """\
several values: seed=1,2,3 or seed=range(1,4) or method=glob(immiscible*)
one value: model.down_dims=[32,64], {a: 1}, 'a,b'

settings of the sweep:
  sweep_dir=DIR     where it lies (default: runs/sweeps/NAME, of the task and
                    the keys that vary)
  launcher=local    processes of this machine: launcher.slots=RUNS side by
                    side, or launcher.gpu_memory=GB of each where several
                    share a GPU
  launcher=ray      launcher.address=HOST:PORT (default: a cluster on this
                    machine); of each run launcher.cpus, launcher.gpus
                    (0.25: four on a GPU), launcher.retries after a lost node
  launcher=slurm    launcher.partition, launcher.timeout in minutes,
                    launcher.requeues, launcher.slots,
                    launcher.options={qos: high}; of each run launcher.cpus,
                    launcher.gpus, launcher.memory in GB

examples:
  policy-accel sweep task=pusht_keypoints method=baseline,immiscible_knn,kl seed=1,2,3 training.steps=2000
  policy-accel sweep task=mnist task.data=PATH method=baseline,clts 'seed=range(5)' launcher.gpu_memory=4
  policy-accel sweep mine.yaml launcher=ray launcher.gpus=0.25
  policy-accel sweep --status runs/sweeps/pusht_keypoints-method-seed
A line `key: value` of a YAML file is key=value on the command line, which wins
over the file.
"""


def add_sweep_arguments(sweep: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel sweep`."""
    sweep.description = DESCRIPTION
    sweep.epilog = EPILOG
    sweep.formatter_class = Readable
    sweep.add_argument(
        "overrides", nargs="*", metavar="[FILE.yaml] KEY=VALUES", help="settings as for train, with one or more values"
    )
    sweep.add_argument("--config-dir", type=Path, metavar="DIR", help="as for train")
    sweep.add_argument("--dry-run", action="store_true", help="check and name the runs, and stop")
    sweep.add_argument("--status", type=Path, metavar="DIR", help="show how the sweep in this folder stands")
    sweep.set_defaults(run="sweep:run_sweep")
