"""`policy-accel tune-sampling`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from policy_accel.commands.output import suggest
from policy_accel.commands.then import trusted
from policy_accel.errors import UserError
from policy_accel.files import check_writable
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_TRAINED
from policy_accel.track import replaced, track_of_run
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.distillation import DistillationConfig
from policy_accel.trust import admit
from policy_accel.tuning.table import conclusion, record, table
from policy_accel.tuning.tune import TuneConfig, tune


def run_tune_sampling(options: argparse.Namespace) -> int:
    """Choose the times of a run's sampler and write RUN/sampling.yaml; with --json print one JSON object, and the
    table on the standard error."""
    names = ("evaluations", "windows", "noises", "episodes", "seed", "tolerance", "use")
    asked = replaced(TuneConfig(), **{name: getattr(options, name) for name in names})
    run_dir = options.run_dir
    admit(run_dir, options.plugins, trust=options.trust)
    trains = track_of_run(run_dir).source
    if trains.track != ROBOT.name:
        raise UserError(
            f"{run_dir} is a run of {trains.trains}, and tune-sampling measures actions; compare times of your own "
            "with `policy-accel evaluate RUN --sampling-times 999,500`."
        )
    check_writable(run_dir)
    device = choose_device(options.device, "--device")
    run = ROBOT.load(run_dir, options.checkpoint, device, asked=AS_TRAINED)
    training = run.config.training
    use_device(device, threads=training.threads, matmul_precision=training.matmul_precision)
    # The data alone: a teacher or the encoder's first weights may be elsewhere, and the run may have been moved.
    task = ROBOT.build(dataclasses.replace(run.config, distillation=DistillationConfig(), run_dir=str(run_dir)))
    task.to(device)
    workers = run.config.evaluation.workers if options.workers is None else options.workers
    tuning = tune(run_dir, run, task, asked, workers, _say)
    tuning.tuned.write(run_dir)
    say = _say if options.json else print
    say(table(tuning))
    say(conclusion(tuning))
    if options.json:
        print(json.dumps(record(tuning)))
    suggest("score it sampled so", ["evaluate", run_dir, *trusted(options)], quiet=options.json)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
