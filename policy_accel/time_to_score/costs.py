"""What a run had cost when it had made a number of updates."""

from __future__ import annotations

from pathlib import Path

from policy_accel.benchmark.counting import count_update
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import read_metrics

COSTS = ("updates", "network_evaluations", "samples", "seconds", "flops")


def flops_of_an_update(config: RobotConfig) -> float:
    """Floating-point operations of the network, forward and back, in one update of a run, as torch counts them."""
    return count_update(ROBOT.build(config), config.training, config.seed).flops


def costs_at(run_dir: Path, config: RobotConfig, step: int, flops: float) -> dict[str, float]:
    """The costs of the first `step` updates, by the names of `COSTS`.

    network_evaluations: forward-backward passes of a sample, each of its times counted, and the forward passes of a
    choice of noise that asks the denoiser. samples: clean ones, with repetition. seconds: of the updates alone, as
    measured where the run trained. flops: of the passes forward and back; encoders of pictures run once a sample.

    Args:
        run_dir: of the run.
        config: its configuration.
        step: at which it has a checkpoint.
        flops: of an update.

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
        "network_evaluations": samples * config.acceleration.path.repetition().repeats + centred,
        "samples": samples,
        "seconds": float(rows[-1]["training_seconds"]),
        "flops": step * flops,
    }
