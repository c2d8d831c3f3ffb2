"""Proves that a change of the code left every number alone: SHA-256 of weights and samples of every method.

    python benchmarks/same_bits.py record benchmarks/results/same_bits_cpu.json    # on the old code
    python benchmarks/same_bits.py check benchmarks/results/same_bits_cpu.json     # on the new: names what differs

Every method preset of both tracks, and settings that take other ways through the core, train 30 updates of a small
net; then actions are predicted, or images drawn. Only the command line and `policy_accel.Policy` are used, so that the
script outlives moves inside the package. The bits depend on torch and the processor: record and check on one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from results import write_result
from safetensors.torch import load_file

from policy_accel import Policy
from policy_accel.cli import main as policy_accel

METHODS = [path.stem for path in sorted((Path(__file__).parents[1] / "configs" / "method").glob("*.yaml"))]
COMMON = [
    "training.steps=30",
    "training.threads=1",
    "training.device=cpu",
    "training.logging.every=10",
    "training.optimizer.warmup_steps=3",
    "training.validate_every=15",
    "training.evaluate_every=0",
]
ROBOT = [*COMMON, "training.batch_size=16", "evaluation.workers=0", "evaluation.videos=0", "evaluation.slots=2"]
IMAGES = [
    *COMMON,
    "task=shapes",
    "recipe=images_small",
    "task.limit=256",
    "training.batch_size=8",
    "training.ema.lengths=[0.1]",
    "model.channels=8",
    "model.multipliers=[1,2]",
    "model.blocks=1",
    "model.attention_resolutions=[12]",
    "model.heads=1",
    "evaluation.samples=0",
    "evaluation.curve_samples=0",
    "evaluation.grid=0",
    "evaluation.video=false",
]
NO_SCORE = ["evaluation.episodes=0"]
GROUPS = ["acceleration.noise.groups=16"]
# What a preset needs with batches of 16 (8 for images), by track.
NEEDS = {
    "robot": {
        "immiscible_groups": GROUPS,
        "immiscible_classes": GROUPS,
        "everything": GROUPS,
        "immiscible_c2ot": ["acceleration.noise.condition_ratio=0.3"],
        "immiscible_policy": [
            "training.evaluate_every=10",
            "acceleration.noise.start_score=0.0",
            "evaluation.episodes=2",
            "task.max_steps=16",
        ],
        "fdm_cap": ["diffusion.target=v"],
        "fdm_cap_only": ["diffusion.target=v"],
    },
    "images": {
        "immiscible_c2ot": ["acceleration.noise.condition_ratio=0.4"],
        "immiscible_policy": ["acceleration.noise.start_score=null", "acceleration.noise.start_step=5"],
        "immiscible_groups": [],
    },
}
NOT_FOR_IMAGES = ("immiscible_residual", "immiscible_denoiser", "mip")
# Other ways through the core.
ROBOT_VARIANTS = {
    "transformer": ["model=transformer", "model.layers=2", "model.embedding_dim=32"],
    "mlp": ["model=mlp"],
    "epsilon_ddpm": ["diffusion.target=epsilon", "sampling.sampler=ddpm", "sampling.steps=12"],
    "v_dpm_solver": ["diffusion.target=v", "sampling.sampler=dpm_solver++", "sampling.steps=5"],
    "linear_euler_leading": ["diffusion.schedule=linear", "sampling.sampler=euler", "sampling.spacing=leading"],
    "inpainting": ["policy.conditioning=inpainting"],
    "inpainting_knn": ["policy.conditioning=inpainting", "method=immiscible_knn"],
    "inpainting_denoiser": ["policy.conditioning=inpainting", "method=immiscible_denoiser"],
    "masked_assignment": ["task.mask_padding=true", "method=immiscible"],
    "masked_kl": ["task.mask_padding=true", "method=kl"],
    "clipped_clts_decay": ["method=consistency", "training.optimizer.clip_grad_norm=1.0"],
    "everything_scaled": ["method=everything", *GROUPS, "acceleration.data_scale=2.0"],
    "half_life": ["training.ema.half_life=500", "training.ema.lengths=[0.05,0.1]"],
}
IMAGE_VARIANTS = {
    "guided": ["task.label_dropout=0.2"],
    "edm_augmented": ["method=edm", "task.augmentation=edm"],
    "flow_knn": ["recipe=images_small", "method=immiscible_knn", "diffusion.family=flow", "diffusion.target=flow"],
    "ddpm_sampler": ["sampling.sampler=ddpm", "sampling.steps=12"],
}
INPAINT = ["--count", "3", "--inpaint", "PICTURE", "--mask", "4,4,16,16", "--labels", "star"]
SAMPLES = {
    "plain": ["--count", "6"],
    "guided": ["--count", "6", "--guidance", "2.0"],
    "edit": ["--count", "3", "--edit", "PICTURE", "--strength", "0.5", "--labels", "star"],
    "inpaint": INPAINT,
    "resampled": [*INPAINT, "--sampler", "ddpm", "--sampling-steps", "6", "--resamplings", "2"],
}


def digest(*arrays: np.ndarray) -> str:
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:32]


def weights(run_dir: Path) -> dict[str, str]:
    """SHA-256 of each file of weights of a run's last checkpoint, over names and values."""
    found = {}
    for file in sorted((run_dir / "checkpoints" / "last").glob("*.safetensors")):
        if not file.stem.startswith(("model", "ema")):
            continue
        tensors = load_file(file)
        names = np.frombuffer("".join(sorted(tensors)).encode(), dtype=np.uint8)
        found[file.stem] = digest(names, *(tensors[name].numpy() for name in sorted(tensors)))
    return found


def losses(run_dir: Path) -> str:
    """SHA-256 of every logged loss, gradient norm and validation loss."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    kept = [row.get(key, 0.0) for row in rows for key in ("step", "loss", "grad_norm", "validation_loss", "lr")]
    return digest(np.array(kept))


def command(*arguments: str) -> None:
    """Run one command of the package, quietly; its words come out when it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = policy_accel(list(arguments))
    if status:
        raise SystemExit(f"policy-accel {' '.join(arguments)} ended with status {status}:\n{said.getvalue()}")


def actions(run_dir: Path, warm_start: float | None = None) -> str:
    """SHA-256 of the actions of 20 steps on random observations."""
    torch.set_num_threads(1)
    policy = Policy.load(run_dir, device="cpu", warm_start=warm_start)
    observations = np.random.default_rng(0).uniform(100, 400, (20, policy.run.policy.input_dim)).astype(np.float32)
    policy.reset(seed=3)
    return digest(*(policy.act(observation) for observation in observations))


def images(run_dir: Path, *options: str) -> str:
    """SHA-256 of images that `sample` draws."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        from PIL import Image

        Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(picture)
        given = [str(picture) if option == "PICTURE" else option for option in options]
        output = Path(folder) / "out"
        command("sample", str(run_dir), "--npz", "--device", "cpu", "--output", str(output), *given)
        with np.load(output / "samples.npz") as drawn:
            return digest(*(drawn[name] for name in sorted(drawn)))


def robot_runs() -> Iterator[tuple[str, list[str]]]:
    for method in METHODS:
        yield f"robot/{method}", [*ROBOT, *NO_SCORE, f"method={method}", *NEEDS["robot"].get(method, [])]
    for name, overrides in ROBOT_VARIANTS.items():
        yield f"robot/{name}", [*ROBOT, *NO_SCORE, *overrides]


def image_runs() -> Iterator[tuple[str, list[str]]]:
    for method in METHODS:
        if method not in NOT_FOR_IMAGES:
            yield f"images/{method}", [*IMAGES, f"method={method}", *NEEDS["images"].get(method, [])]
    for name, overrides in IMAGE_VARIANTS.items():
        yield f"images/{name}", [*IMAGES, *overrides]


def measure(only: str = "") -> dict[str, dict[str, str]]:
    """Hashes of every run by name."""
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name, overrides in [*robot_runs(), *image_runs()]:
            if only not in name:
                continue
            began, run_dir = time.monotonic(), Path(folder) / name
            command("train", *overrides, f"run_dir={run_dir}")
            entry = {**weights(run_dir), "log": losses(run_dir)}
            if name.startswith("robot/"):
                entry["actions"] = actions(run_dir)
                if name in ("robot/baseline", "robot/flow"):
                    entry["actions_warm"] = actions(run_dir, warm_start=0.5)
            else:
                entry["images_plain"] = images(run_dir, *SAMPLES["plain"])
                if name == "images/guided":
                    entry |= {f"images_{kind}": images(run_dir, *options) for kind, options in SAMPLES.items()}
            found[name] = entry
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="runs whose name holds this, for example robot/kl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.only)
    if options.action == "record":
        write_result(options.file, {"instructions": torch.backends.cpu.get_cpu_capability(), "runs": found})
        return 0
    known = json.loads(options.file.read_text())["runs"]
    wanted = {name: entry for name, entry in known.items() if options.only in name}
    wrong = [
        f"{name}: {key} {'differs' if key in found.get(name, {}) else 'is missing'}"
        for name, entry in wanted.items()
        for key, value in entry.items()
        if found.get(name, {}).get(key) != value
    ]
    print("\n".join(wrong) or f"{len(wanted)} runs: the same bits")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
