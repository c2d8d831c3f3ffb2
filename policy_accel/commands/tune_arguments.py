"""The arguments of `policy-accel tune-sampling`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import AT_LEAST_0, AT_LEAST_1, NOT_NEGATIVE, WORKERS
from policy_accel.commands.overview import Readable


def add_tune_arguments(tune: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel tune-sampling`; the numbers that are not given are those of `TuneConfig`."""
    tune.formatter_class = Readable
    tune.description = (
        "Choose the times at which a trained policy's network is evaluated, for each of several numbers of\n"
        "evaluations: by the energy score on demonstrations, the best few by rollouts. Writes RUN/sampling.yaml,\n"
        "which evaluate and Policy.load then follow; config.yaml stays as it is."
    )
    tune.epilog = (
        "examples:\n  policy-accel tune-sampling RUN\n  policy-accel tune-sampling RUN --evaluations 2 --use 2"
    )
    tune.add_argument("run_dir", type=Path, metavar="RUN", help="run_dir of a training run of a policy")
    tune.add_argument(
        "--evaluations", type=AT_LEAST_1, nargs="+", metavar="N", help="evaluations of the network (default: 1 2 4)"
    )
    tune.add_argument("--use", type=AT_LEAST_1, metavar="N", help="evaluations that the run takes from now on")
    tune.add_argument(
        "--tolerance",
        type=NOT_NEGATIVE,
        help="without --use: the fewest evaluations whose score is at most this much below the run's (default: 0.02)",
    )
    tune.add_argument("--episodes", type=AT_LEAST_0, help="episodes of each sampling that is rolled out (default: 100)")
    tune.add_argument("--seed", type=AT_LEAST_0, help="seed of the first episode (default: 500000)")
    tune.add_argument("--windows", type=AT_LEAST_1, help="windows of demonstrations (default: 256)")
    tune.add_argument("--noises", type=AT_LEAST_1, help="samples for each window (default: 4)")
    tune.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    tune.add_argument("--workers", type=WORKERS, help="processes for the environments")
    tune.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    tune.add_argument("--json", action="store_true", help="print one JSON object, and the table on the standard error")
    tune.set_defaults(run="tune_sampling:run_tune_sampling")
