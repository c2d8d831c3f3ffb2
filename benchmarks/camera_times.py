"""Several noise levels of each encoded picture: what an update costs, and what equal CPU-seconds of training give.

    python benchmarks/camera_times.py --data pusht_v7_u8.zarr.zip --seconds 60 --seeds 2

Push-T from pictures with `recipe=small_image`, on one thread. An arm is a batch of so many clean samples, of each of
which so many times are trained on, with independent noises or with noises of one Karhunen-Loeve path. First every arm's
update is timed in interleaved rounds, as it is and with the encoder left out, and changes of frames beside it; the
encoder's share is counted in FLOPs too, also of `recipe=diffusion_policy_image`. Then each arm is trained for as many
updates as fit `--seconds`, its schedule as long as that; the measure is the validation loss of the averaged weights
(uniform times, independent noises, the same draws for all), beside the score of a few episodes. Learning rates are the
recipe's, tuned for no arm; the warm-up is a tenth of the run. The same command goes on with what is done.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from results import RESULTS, write_result

import policy_accel.policy.track as robot_track
from policy_accel.benchmark.counting import count_update
from policy_accel.models.encoders import Augmentation, AugmentationConfig
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.demonstrations import Demonstrations, TaskConfig, load_demonstrations
from policy_accel.policy.image_store import ImageStore
from policy_accel.policy.policy import PolicyConfig
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.track import ROBOT
from policy_accel.training.build import build_update
from policy_accel.training.update import Update

LONG = 1_000_000
RECIPES = ("small_image", "diffusion_policy_image")


@dataclass(frozen=True)
class Arm:
    """Clean samples of a batch, times of each, and how their noises belong together."""

    batch: int
    times: int = 1
    coupling: str = "single"

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.times}" + ("" if self.times == 1 else f" {self.coupling}")

    def overrides(self) -> list[str]:
        path = [] if self.times == 1 else [f"acceleration.path.times_per_sample={self.times}"]
        stratified = [] if self.times == 1 else ["acceleration.timesteps.stratified=true"]  # as kl and kl_independent
        return [f"training.batch_size={self.batch}", f"acceleration/path={self.coupling}", *path, *stratified]


ARMS = (
    Arm(64),
    Arm(16),
    Arm(16, 4, "independent"),
    Arm(16, 16, "independent"),
    Arm(64, 4, "independent"),
    Arm(16, 4, "shared"),
    Arm(64, 4, "shared"),
    Arm(64, 16, "independent"),
)
TRAINED = ARMS[:-1]


def config_of(data: str, arm: Arm, *overrides: str, recipe: str = "small_image") -> RobotConfig:
    """The settings of an arm on one thread; a tenth of the demonstrations is held out."""
    return ROBOT.config(
        [
            "task=pusht_image",
            f"recipe={recipe}",
            f"task.data={data}",
            "task.val_ratio=0.1",
            "training.device=cpu",
            "training.threads=1",
            "evaluation.workers=0",
            "evaluation.videos=0",
            "evaluation.slots=10",
            *arm.overrides(),
            *overrides,
        ]
    )


def updates_of(update: Update, count: int, first: int = 0) -> float:
    """CPU seconds of `count` updates."""
    began = time.process_time()
    for step in range(first, first + count):
        update(step)
        if update.log.full:
            update.log.read()
    return time.process_time() - began


def without_encoder(task: ChunkTask) -> None:
    """Let the policy take features that are there already, so that what is timed is all but the encoder."""
    encoder = task.policy.encoder
    assert encoder is not None

    def features(condition: Any) -> torch.Tensor:
        state = condition["state"]
        return state.new_zeros(*state.shape[:2], encoder.output_dim)

    task.policy.encode = features  # type: ignore[method-assign, assignment]


def flops(data: str, recipe: str) -> dict[str, float]:
    """FLOPs of an update with 64 samples, of its encoder, and with the trunk frozen; shares of the encoder."""
    counted = {}
    for part in ("all", "rest", "frozen"):
        config = config_of(data, Arm(64), recipe=recipe)
        task = ROBOT.build(config)
        assert task.policy.encoder is not None
        if part == "rest":
            without_encoder(task)
        if part == "frozen":
            for network in task.policy.encoder.networks:
                network.get_submodule("trunk").requires_grad_(False)
        counted[part] = count_update(task, config.training, config.seed).flops
    encoder = counted["all"] - counted["rest"]
    shares = {times: encoder / (encoder + times * counted["rest"]) for times in (1, 4, 16)}
    return {
        "update": counted["all"],
        "encoder": encoder,
        "update_with_frozen_trunk": counted["frozen"],
        **{f"share_of_the_encoder_with_{times}_times": share for times, share in shares.items()},
    }


def costs(data: str, arms: tuple[Arm, ...], rounds: int, updates: int) -> dict[str, Any]:
    """CPU milliseconds of an update of every arm, and of all of it but the encoder: medians of interleaved rounds."""
    sides = {}
    for arm in arms:
        for part in ("all", "rest"):
            config = config_of(data, arm, f"training.steps={LONG}")
            task = ROBOT.build(config)
            if part == "rest":
                without_encoder(task)
            sides[arm.name, part] = build_update(task, config.training, config.seed)
            updates_of(sides[arm.name, part], 1)
    spent: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            spent[side].append(updates_of(sides[side], updates, 1 + number * updates) / updates)
    found = {}
    for arm in arms:
        whole, rest = (statistics.median(spent[arm.name, part]) for part in ("all", "rest"))
        found[arm.name] = {
            "cpu_milliseconds": 1e3 * whole,
            "cpu_milliseconds_of_rounds": [1e3 * value for value in spent[arm.name, "all"]],
            "cpu_milliseconds_without_encoder": 1e3 * rest,
            "share_of_the_encoder": 1 - rest / whole,
            "rows_per_cpu_second": arm.batch * arm.times / whole,
        }
    return found


def trained(data: str, arm: Arm, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """Train an arm for so many updates; CPU seconds, validation loss and score of the averaged weights."""
    warm_up = f"training.optimizer.warmup_steps={max(1, steps // 10)}"
    given = [f"training.steps={steps}", f"seed={seed}", warm_up, f"evaluation.episodes={episodes}"]
    config = config_of(data, arm, *given, "evaluation.start_seed=200000")
    task = ROBOT.build(config, scored=episodes > 0)
    try:
        update = build_update(task, config.training, seed)
        spent = updates_of(update, steps)
        held_out = torch.arange(task.validation_samples).split(64)
        loss = update.validation_loss((task.validation_batch(part) for part in held_out), 0)
        score = task.evaluate(update.ema.model, print, step=steps) if episodes else None
    finally:
        task.close()
    found = {
        "updates": steps,
        "cpu_seconds": spent,
        "samples": steps * arm.batch,
        "rows": steps * arm.batch * arm.times,
    }
    found |= {"validation_loss": float(loss), "validation_windows": task.validation_samples}
    return found if score is None else {**found, "score": score["score"], "score_interval": score["score_interval"]}


def augmentation_costs(batch: int = 64, repeats: int = 8) -> dict[str, float]:
    """CPU milliseconds of changing the frames of a batch, two for each sample: shifts of 96 px, colours of 84 px."""
    every = AugmentationConfig(brightness=0.3, contrast=0.4, saturation=0.5, hue=0.08)
    ways = {
        "shift": (96, AugmentationConfig(shift=4)),
        "brightness": (84, AugmentationConfig(brightness=0.3)),
        "brightness, contrast, saturation": (84, replace(every, hue=0.0)),
        "all colours": (84, every),
    }
    found, generator = {}, torch.Generator().manual_seed(0)
    for name, (side, config) in ways.items():
        frames = {"img": torch.randint(256, (batch, 2, side, side, 3), dtype=torch.uint8, generator=generator)}
        augmentation, spent = Augmentation(config, {"img": (side, side, 3)}), []
        for _ in range(repeats):
            drawn, began = augmentation.draw(batch, generator), time.process_time()
            augmentation(frames, drawn)
            spent.append(1e3 * (time.process_time() - began))
        found[name] = statistics.median(spent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--updates", type=int, default=2, help="of an arm in a round")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "camera_times_cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first = config_of(options.data, ARMS[0])
    demonstrations = load_demonstrations(first.task, first.policy)
    assert demonstrations.images is not None
    frames = demonstrations.images.frames

    def again(task: TaskConfig, policy: PolicyConfig) -> Demonstrations:
        """The pictures are read once for all arms, whose data are the same."""
        return replace(demonstrations, images=ImageStore(frames))

    robot_track.load_demonstrations = again
    done: dict[str, Any] = json.loads(options.output.read_text()) if options.output.is_file() else {}
    result = {key: done[key] for key in ("costs", "runs") if key in done}
    result.setdefault("runs", {})

    def keep() -> None:
        write_result(options.output, {"arms": {arm.name: asdict(arm) for arm in ARMS}, **result})

    result["flops"] = {recipe: flops(options.data, recipe) for recipe in RECIPES}
    result["cpu_milliseconds_of_augmentation"] = augmentation_costs()
    if "costs" not in result:
        result["costs"] = costs(options.data, ARMS, options.rounds, options.updates)
        keep()
    for seed in range(options.seeds):
        for arm in TRAINED:
            runs = result["runs"].setdefault(arm.name, {})
            if str(seed) not in runs:
                steps = round(1e3 * options.seconds / result["costs"][arm.name]["cpu_milliseconds"])
                runs[str(seed)] = trained(options.data, arm, seed, steps, options.episodes)
                print(arm.name, seed, runs[str(seed)], flush=True)
                keep()


if __name__ == "__main__":
    main()
