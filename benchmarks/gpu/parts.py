"""The parts of run.sh. Each writes OUTPUT/PART.json as it goes on, so that what was measured before a stop is there."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CARRIED = Path(__file__).resolve().parent / "carried"
PURE = ("hydra", "omegaconf", "antlr4", "yaml", "gymnasium", "farama_notifications", "cloudpickle", "tqdm", "packaging")
PURE_FILES = ("typing_extensions",)
SIMULATOR = ("pymunk", "gym_pusht", "pygame", "shapely", "cv2")
"""What scoring Push-T imports; compiled, so never carried."""
UPDATES, TOLERANCE = 200, 1e-5
METHODS = (
    "baseline", "immiscible", "immiscible_knn", "immiscible_denoiser", "kl", "fdm_schedule", "clts", "momentum_decay",
    "loss_second_moment", "min_snr", "stratified", "edm", "flow",
)  # fmt: skip
MINUTES = 8.0
"""A part begins nothing new after so long; run.sh stops it at nine."""
EXACT = ["training.precision=fp32", "training.matmul_precision=highest"]
WAYS = {
    "bf16": [],
    "TF32": ["training.precision=fp32"],
    "float32": EXACT,
    "channels first": ["training.channels_last=false"],
    "compiled": ["training.compile=true"],
    "compiled, channels first": ["training.compile=true", "training.channels_last=false"],
}
"""Settings that a GPU decides about, each beside the defaults there."""
COMPARED = {
    "small": ("bf16", "TF32", "float32", "compiled"),
    "reference": ("bf16", "TF32", "float32", "compiled"),
    "DDPM, CIFAR-10": tuple(WAYS),
    "image policy": ("bf16", "TF32", "float32", "channels first", "compiled"),
}
"""Ways by net."""
TRAINING = ["recipe=small", "training.evaluate_every=0", "training.checkpoint.every=1000"]


def carry() -> None:
    """Copy what run.sh needs beside torch, numpy, scipy and safetensors, and the demonstrations, into `carried`."""
    import numpy as np

    from policy_accel.data import shipped_path
    from policy_accel.data.readers import read_episodes

    shutil.rmtree(CARRIED, ignore_errors=True)
    CARRIED.mkdir()
    for name in (*PURE, *PURE_FILES):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SystemExit(f"run.sh: {name} is not installed here; `make setup` first")
        origin = Path(spec.origin)
        if name in PURE_FILES:
            shutil.copy(origin, CARRIED)
        else:
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(origin.parent, CARRIED / name, ignore=ignored)
    episodes = read_episodes(shipped_path("pusht_scripted.zarr.zip"))
    np.savez_compressed(CARRIED / "pusht_scripted.npz", episode_ends=episodes.episode_ends, **episodes.arrays)
    print(f"{CARRIED}: {sum(path.stat().st_size for path in CARRIED.rglob('*') if path.is_file()) / 1e6:.1f} MB")


def demonstrations(given: Path | None) -> str:
    """Where the demonstrations are: those that are given, carried, or shipped where zarr can be imported."""
    if given is not None:
        return str(given)
    carried = CARRIED / "pusht_scripted.npz"
    if carried.is_file():
        return str(carried)
    if importlib.util.find_spec("zarr") is None:
        raise SystemExit("run.sh: the demonstrations that ship need zarr; `run.sh carry` where it is makes an NPZ")
    return "shipped:pusht_scripted.zarr.zip"


def losses(overrides: Sequence[str], updates: int, *, captured: bool) -> list[float]:
    """Losses of a run's first updates; in the later half nothing may wait for the device."""
    import torch

    from policy_accel.policy.track import ROBOT
    from policy_accel.training.build import build_update

    config = ROBOT.config(
        [*overrides, f"training.capture={str(captured).lower()}", f"training.logging.every={updates}"]
    )
    config.training.steps = max(config.training.steps, updates)
    update = build_update(ROBOT.build(config), config.training, config.seed)
    for step in range(updates // 2):
        update(step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(updates // 2, updates):
            update(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found: list[float] = update.log.read().losses.tolist()
    return found


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Largest relative difference of two rows of losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def check(output: Path, data: Path | None, *, methods: Sequence[str] = METHODS, updates: int = UPDATES,
          overrides: Sequence[str] = (), device: str = "cuda") -> bool:  # fmt: skip
    """Captured against eager updates of every method. A second eager run says what the device itself leaves open."""
    common = [
        f"task.data={demonstrations(data)}",
        f"training.device={device}",
        "training.deterministic=true",
        "evaluation.episodes=0",
    ]
    rows: list[dict[str, Any]] = []
    for method in _in_time(methods):
        settings = ["recipe=small", *common, f"method={method}", *overrides]
        eager = losses(settings, updates, captured=False)
        difference = largest_difference(losses(settings, updates, captured=True), eager)
        repeated = largest_difference(losses(settings, updates, captured=False), eager)
        good = difference <= max(TOLERANCE, 2 * repeated)
        rows.append({"method": method, "largest_difference": difference, "of_eager_twice": repeated, "good": good})
        print(f"{method}: {difference:.2g} (eager twice: {repeated:.2g}) {'good' if good else 'NOT GOOD'}", flush=True)
        _write(output / "check.json", {"updates": updates, "tolerance": TOLERANCE, "methods": rows})
    return all(row["good"] for row in rows)


def nets(data: str, made_up: Path) -> dict[str, list[str]]:
    """Overrides by net; pictures are random, which costs as much as real ones."""
    import numpy as np

    made_up.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    pictures, images = made_up / "pictures.npz", made_up / "images.npz"
    steps = 2048
    numbers = {name: generator.normal(size=(steps, size)).astype("f4") for name, size in (("state", 5), ("action", 2))}
    img = generator.integers(0, 256, (steps, 96, 96, 3), dtype="u1")
    np.savez(pictures, img=img, episode_ends=np.arange(128, steps + 1, 128), **numbers)
    bytes_of_images = generator.integers(0, 256, (8192, 3, 32, 32), dtype="u1")
    np.savez(images, images=bytes_of_images, labels=np.arange(8192) % 10)
    robot, cifar = [f"task.data={data}"], ["task=cifar10", f"task.data={images}"]
    bf16 = ["training.precision=bf16", "training.matmul_precision=high"]
    return {
        "small": ["recipe=small", *robot, *bf16],
        "reference": ["recipe=diffusion_policy", *robot, *bf16],
        "reference, float32": ["recipe=diffusion_policy", *robot, *EXACT],
        "image policy": ["recipe=diffusion_policy_image", f"task.data={pictures}", *bf16],
        "DDPM, CIFAR-10": ["recipe=ddpm_cifar10", *cifar, *bf16],
        "DDPM++, CIFAR-10": ["recipe=edm_cifar10", *cifar, *bf16],
        "small, assigned noise": ["recipe=small", *robot, *bf16, "method=immiscible"],
    }


def step(output: Path, data: Path | None, *, only: Sequence[str] = (), overrides: Sequence[str] = (),
         device: str = "cuda", seconds: float = 20.0) -> None:  # fmt: skip
    """`policy-accel benchmark step` for each net."""
    from policy_accel.benchmark.report import step_table

    found: dict[str, Any] = {}
    chosen = nets(demonstrations(data), output / "made_up")
    for name in _in_time(only or list(chosen)):
        found[name] = _measured([*chosen[name], f"training.device={device}", *overrides], seconds)
        print(f"\n{name}\n{step_table(found[name])}", flush=True)
        _write(output / "step.json", {"nets": found})


def ways(output: Path, data: Path | None, *, only: Sequence[str] = (), overrides: Sequence[str] = (),
         device: str = "cuda", seconds: float = 8.0) -> None:  # fmt: skip
    """The same nets in other precisions, compiled, and in the other order of images: updates a second."""
    chosen = nets(demonstrations(data), output / "made_up")
    asked = [f"{net}: {way}" for net in only or COMPARED for way in COMPARED[net]]
    # Compiling takes minutes, so that it comes last.
    asked.sort(key=lambda name: "compiled" in name)
    found: dict[str, Any] = {}
    for name in _in_time(asked):
        net, way = name.split(": ")
        found[name] = _measured([*chosen[net], f"training.device={device}", *overrides, *WAYS[way]], seconds)
        core = found[name]["core"]
        print(f"{name}: {core['updates_per_second']:.4g} updates/s, {core['peak_bytes'] / 1e9:.3g} GB", flush=True)
        _write(output / "ways.json", {"ways": found})


def _measured(settings: list[str], seconds: float) -> dict[str, Any]:
    from policy_accel.benchmark.step import benchmark_step
    from policy_accel.configuration import source_of
    from policy_accel.track import track

    which = track(source_of(settings).track)
    return benchmark_step(which, which.config(settings), rounds=3, seconds=seconds, report=lambda line: None)


def train(output: Path, data: Path | None, *, overrides: Sequence[str] = (), device: str = "cuda") -> None:
    """Train Push-T and score it, or say why it is not scored."""
    from policy_accel.policy.track import ROBOT
    from policy_accel.run_files import read_metrics

    missing = [name for name in SIMULATOR if importlib.util.find_spec(name) is None]
    run = output / "pusht"
    scored = ["evaluation.episodes=0"] if missing else ["evaluation.videos=0"]
    settings = [*TRAINING, f"task.data={demonstrations(data)}", f"training.device={device}", f"run_dir={run}", *scored]
    trained = ROBOT.train(ROBOT.config([*settings, *overrides]))
    rows = read_metrics(run / "metrics.jsonl")
    result: dict[str, Any] = {
        "demonstrations": Path(demonstrations(data)).name,
        "updates": trained.step,
        "seconds": trained.training_seconds,
        "validation_loss": next((row["validation_loss"] for row in reversed(rows) if "validation_loss" in row), None),
        "score": None if trained.evaluation is None else trained.evaluation["score"],
        "score_interval": None if trained.evaluation is None else trained.evaluation["score_interval"],
    }
    if missing:
        result["left_out"] = f"the score: {', '.join(missing)} not installed; `policy-accel evaluate` scores {run.name}"
    print(result, flush=True)
    _write(output / "train.json", result)


def _in_time(names: Sequence[str]) -> Iterator[str]:
    """One after the other, and a line for those that the time does not allow."""
    began = time.monotonic()
    for place, name in enumerate(names):
        if time.monotonic() - began > 60 * MINUTES:
            print(f"left out for lack of time: {', '.join(names[place:])}", flush=True)
            return
        yield name


def _write(path: Path, figures: dict[str, Any]) -> None:
    import torch

    from policy_accel.files import replace_json

    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    replace_json(path, {"command": f"benchmarks/gpu/run.sh {path.stem}", **place, **figures})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("carry", "check", "step", "ways", "train"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "carry":
        carry()
        return 0
    missing = [name for name in ("torch", "numpy", "scipy", "safetensors", *PURE) if not importlib.util.find_spec(name)]
    if missing:
        print(f"run.sh: {', '.join(missing)} missing here; see the head of run.sh about `carry`", file=sys.stderr)
        return 2
    import torch

    if not torch.cuda.is_available():
        print("run.sh: torch finds no CUDA device here", file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        part = {"check": check, "step": step, "ways": ways, "train": train}[arguments.part]
        return 1 if part(arguments.output, arguments.data) is False else 0
    print("run.sh: stopped; what was measured before is written", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
