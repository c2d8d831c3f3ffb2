"""What a run had cost when it had made a number of updates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policy_accel.benchmark.counting import count_update
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import read_metrics

COSTS = ("updates", "network_evaluations", "samples", "seconds", "flops")


@dataclass(frozen=True)
class UpdateWork:
    """Work of one update.

    flops: floating-point operations of the network, forward and back, as torch counts them. evaluations: of a network
    for each clean sample: of all its times forward and back, and those by which targets are made, see `Lesson`.
    """

    flops: float
    evaluations: float


def work_of_an_update(config: RobotConfig) -> UpdateWork:
    """The work of each update of a run."""
    task = ROBOT.build(config)
    taught = 0 if task.lesson is None else task.lesson.evaluations
    evaluations = task.objective.repetition.repeats + taught
    return UpdateWork(count_update(task, config.training, config.seed).flops, evaluations)


def costs_at(run_dir: Path, config: RobotConfig, step: int, work: UpdateWork) -> dict[str, float]:
    """The costs of the first `step` updates, by the names of `COSTS`.

    network_evaluations: forward-backward passes of a sample, each of its times counted, and the forward passes of a
    choice of noise that asks the denoiser and of a lesson that makes targets. samples: clean ones, with repetition.
    seconds: of the updates alone, as measured where the run trained. flops: of the passes forward and back; encoders of
    pictures run once a sample.

    Args:
        run_dir: of the run.
        config: its configuration.
        step: at which it has a checkpoint.
        work: of an update.

    Raises:
        UserError: the run's metrics do not have the row of that checkpoint.
    """
    path = run_dir / "metrics.jsonl"
    rows = [row for row in read_metrics(path) if row.get("step") == step and "training_seconds" in row]
    if not rows:
        raise UserError(f"{path} has no row of update {step}, at which there is a checkpoint; train the run anew.")
    samples = int(rows[-1]["samples"])
    centred = step * config.training.batch_size if config.acceleration.noise.center == "denoiser" else 0
    return {
        "updates": step,
        "network_evaluations": round(samples * work.evaluations) + centred,
        "samples": samples,
        "seconds": float(rows[-1]["training_seconds"]),
        "flops": step * work.flops,
    }
