"""Every extra of pyproject.toml alone in a fresh environment: does what it is for work, and what is said without it.

    python benchmarks/extras.py                                       # some minutes for each
    python benchmarks/extras.py --only pusht,report --base VENV --output mine.json

An environment gets torch and then what `pip install -e .` installs, without our pins, as a stranger's does. In it the
core must work, and the first command of every extra must end with the sentence that says how to install it. A copy of
it then gets `-e '.[EXTRA]'`, and all commands of the extra must work; `all` runs everybody's. uv installs, since it
takes a tenth of pip's time. The result is written after every extra.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

from results import RESULTS, write_result

from policy_accel.extras import to_install

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = ["-m", "policy_accel"]
SHORT = ["recipe=demo", "training.steps=2", "training.device=cpu", "training.threads=1", "evaluation.workers=0"]
BLIND = [*SHORT, "task.environment=null"]
TRAIN = [*COMMAND, "train", *BLIND]
SWEEP = [*COMMAND, "sweep", *BLIND, "seed=1,2"]
SCORED = ["task.max_steps=20", "evaluation.episodes=1", "evaluation.videos=1", "run_dir=scored"]
SHIPPED = "shipped:pusht_scripted.zarr.zip"

OF_THE_HUB = """
from policy_accel import Policy
from policy_accel.errors import UserError
try:
    Policy.from_pretrained("nobody/no-such-policy")
except UserError as error:
    assert "cannot be downloaded" in str(error), error
"""
CARD = """
from huggingface_hub import ModelCard
from policy_accel import Policy
Policy.load("run").save_pretrained("pretrained")
assert ModelCard.load("pretrained/README.md").data.library_name
"""
SCHEDULER = """
import torch
from policy_accel.diffusion.schedulers import MomentumScheduler
scheduler = MomentumScheduler()
scheduler.set_timesteps(2)
x = torch.zeros(1, 3, 4, 4)
assert scheduler.step(x, scheduler.timesteps[0], x).prev_sample.shape == x.shape
"""
PIPELINE = """
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("images_pipeline", trust_remote_code=True)
assert pipeline(batch_size=1, num_inference_steps=2).images
"""
INCEPTION = """
from policy_accel.errors import UserError
from policy_accel.images.metrics.inception import inception_features
try:
    inception_features("no_such_file.pth")
except UserError as error:
    assert "is not a file" in str(error), error
"""
JOB = """
from policy_accel.sweep.slurm import import_submitit
assert import_submitit().LocalExecutor("jobs").submit(int, "3").result() == 3
"""
CLIENT = """
import signal, socket, subprocess, sys
from policy_accel.robot.serving.client import PolicyClient
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
server = subprocess.Popen([sys.executable, "-m", "policy_accel", "serve", "run", "--port", port])
try:
    print(PolicyClient(f"ws://127.0.0.1:{port}", patience=90.0).metadata)
finally:
    server.send_signal(signal.SIGINT)
    server.wait(30)
"""

CORE = [
    [*TRAIN, "run_dir=run"],
    [*COMMAND, "evaluate", "run", "--data", SHIPPED],
    [*COMMAND, "export", "run", "--to", "torch", "--output", "run.pt2"],
    [*COMMAND, "train", "recipe=images_demo", "training.steps=2", "training.device=cpu", "run_dir=images"],
    [*COMMAND, "sample", "images", "--count", "2", "--sampling-steps", "2", "--output", "drawn"],
]
"""What needs no extra; it also makes the runs that the others use."""
FEATURES: dict[str, list[list[str]]] = {
    "pusht": [[*COMMAND, "train", *SHORT, *SCORED]],
    "robosuite": [[*COMMAND, "data", "generate", "lift", "--episodes", "1", "--output", "lift.hdf5"]],
    "planning": [
        [*COMMAND, "data", "generate", "pointmaze_umaze", "--episodes", "1", "--output", "maze.zarr.zip"],
        [*COMMAND, "data", "generate", "fetch_push", "--episodes", "1", "--output", "push.zarr.zip"],
    ],
    "lerobot": [
        [*COMMAND, "data", "convert", SHIPPED, "lerobot", "--to", "lerobot"],
        [*COMMAND, "data", "inspect", "lerobot"],
    ],
    "robomimic": [["-c", "import robomimic.utils.file_utils"]],
    "wandb": [[*TRAIN, "run_dir=wandb_run", "training.logging.wandb=offline"]],
    "diffusers": [
        ["-c", SCHEDULER],
        [*COMMAND, "export", "images", "--to", "diffusers", "--output", "images_pipeline"],
        ["-c", PIPELINE],
    ],
    "ray": [[*SWEEP, "launcher=ray", "sweep_dir=ray_sweep"]],
    "slurm": [["-c", JOB]],
    "report": [[*COMMAND, "report", "run"]],
    "tensorboard": [[*TRAIN, "run_dir=board_run", "training.logging.tensorboard=true"]],
    "fid": [
        ["-c", INCEPTION],
        ["-c", "import torch_fidelity.feature_extractor_inceptionv3"],
    ],
    "export": [[*COMMAND, "export", "run", "--to", "onnx", "--output", "run.onnx"]],
    "serve": [["-c", CLIENT]],
    "hub": [["-c", OF_THE_HUB], ["-c", CARD]],
}
"""Extra -> arguments of Python."""
UNUSED = {"robomimic"}
"""Extras that no code of ours imports."""


def telling(extra: str) -> list[str]:
    """The command that ends with `to_install(extra)` where the extra is not installed."""
    # With the extra this one never ends, so it is none of its features.
    return [*COMMAND, "serve", "run", "--port", "0"] if extra == "serve" else FEATURES[extra][0]


def environment() -> dict[str, str]:
    """Ours, without what would bring in other packages; no hub is asked, and nothing is drawn on a screen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return kept | {"HF_HUB_OFFLINE": "1", "SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": "1"}


def tried(command: list[str | Path], folder: Path, limit: int = 900) -> tuple[int, str]:
    """The status of a command and all that it said; 124 after `limit` seconds."""
    try:
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as late:
        return 124, str(late)
    return done.returncode, done.stdout + done.stderr


def install(python: Path, *what: str) -> None:
    """Install with uv into the environment of a Python."""
    status, said = tried(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *what], REPOSITORY
    )
    if status:
        raise RuntimeError(f"uv pip install {' '.join(what)}: {said[-2000:]}")


def packages(python: Path) -> set[str]:
    """As "numpy==2.3.0"."""
    listed = tried([sys.executable, "-m", "uv", "pip", "freeze", "--exclude-editable", "--python", python], REPOSITORY)
    return {line for line in listed[1].splitlines() if "==" in line}


def size(folder: Path) -> int:
    """Megabytes below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) // 10**6


def runs(python: Path, commands: list[list[str]], folder: Path) -> dict[str, Any]:
    """How the commands ended, up to the first that failed, with its last words."""
    for command in commands:
        status, said = tried([python, *command], folder)
        if status:
            return {"works": False, "failed": " ".join(command).strip(), "status": status, "said": said.strip()[-1500:]}
    return {"works": True}


def without(python: Path, extra: str, folder: Path) -> dict[str, Any]:
    """Whether a command of an extra ends with the sentence, and with the status of a mistake of the user's."""
    first = telling(extra)
    status, said = tried([python, *first], folder)
    told = to_install(extra) in said
    good = told and ("Traceback" not in said and status == 2 if first[0] == "-m" else status != 0)
    return {"told": good} | ({} if good else {"status": status, "said": said.strip()[-1500:]})


def with_extra(base: Path, extra: str, scratch: Path) -> dict[str, Any]:
    """What a copy of the environment with the extra does; the copy shares the files."""
    venv, folder, start = scratch / f"venv_{extra}", scratch / f"work_{extra}", time.monotonic()
    copytree(base, venv, symlinks=True, copy_function=os.link)  # pip and uv replace files and never change them
    copytree(scratch / "work", folder)
    python = venv / "bin" / "python"
    try:
        before, had = packages(python), size(venv)
        try:
            install(python, "--editable", f".[{extra}]")
        except RuntimeError as error:
            return {"installs": False, "said": str(error)}
        added = sorted(packages(python) - before)
        everything = [command for name, commands in FEATURES.items() if name not in UNUSED for command in commands]
        found = {"installs": True, "packages": len(added), "megabytes": size(venv) - had, "added": added}
        found |= runs(python, everything if extra == "all" else FEATURES[extra], folder)
        return found | {"seconds": round(time.monotonic() - start)}
    finally:
        rmtree(venv)
        rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="extras, with commas between")
    parser.add_argument("--base", type=Path, help="an environment that has torch; it is copied (default: a fresh one)")
    parser.add_argument("--output", type=Path, default=RESULTS / "extras_cpu.json")
    options = parser.parse_args()
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    chosen = options.only.split(",") if options.only else [name for name in known if name in FEATURES or name == "all"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.base and options.base.parent) as folder:
        scratch = Path(folder)
        base, work = scratch / "venv", scratch / "work"
        python = base / "bin" / "python"
        if options.base:
            copytree(options.base, base, symlinks=True, copy_function=os.link)
        else:
            subprocess.run([sys.executable, "-m", "venv", base], check=True)
            install(python, "torch")
        install(python, "--editable", ".")
        work.mkdir()
        core = runs(python, CORE, work)
        print("core", core, flush=True)
        for extra in chosen:
            missing = without(python, extra, work) if extra in FEATURES and extra not in UNUSED else {}
            found[extra] = missing | with_extra(base, extra, scratch)
            print(extra, {name: value for name, value in found[extra].items() if name != "added"}, flush=True)
            good = core["works"] and all(each.get("works") and each.get("told", True) for each in found.values())
            write_result(options.output, {"all_work": good, "core": core, "extras": found})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
