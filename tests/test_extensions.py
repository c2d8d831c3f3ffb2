"""What a user keeps outside of the package: a task, a method, a denoiser and more, trained, evaluated, loaded again."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.batches import batch_of
from support.user_modules import forgotten_afterwards

from policy_accel import Policy, groups, plugins
from policy_accel.cli import main
from policy_accel.models import registry
from policy_accel.policy.track import ROBOT

ENVIRONMENT = """
import gymnasium
import numpy as np


class Reach(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2)
        return self.place.astype(np.float32), {}

    def step(self, action):
        self.place = self.place + 0.3 * np.asarray(action)
        return self.place.astype(np.float32), 1.0 - float(np.abs(self.place).max()), False, False, {}


gymnasium.register("OwnReach-v0", Reach)
"""
DENOISER = '''
from dataclasses import dataclass

import torch
from torch import nn

from policy_accel.models import Denoiser, ModelConfig
from policy_accel.plugins import register_denoiser


@dataclass
class OneLayerConfig(ModelConfig):
    """A single layer over the whole chunk."""

    name: str = "one_layer"
    bias: bool = True


class OneLayer(Denoiser):
    def __init__(self, config, *, channels, horizon, condition_shape):
        super().__init__()
        seen = condition_shape[0] * condition_shape[1]
        self.layer = nn.Linear(horizon * channels + seen + 1, horizon * channels, bias=config.bias)

    def forward(self, x, t, condition=None):
        entries = torch.cat([x.flatten(1), condition.flatten(1), t[:, None].float() / 100], dim=1)
        return self.layer(entries).view_as(x)


register_denoiser("one_layer", OneLayerConfig, OneLayer)
'''
ACCELERATION = '''
from dataclasses import dataclass

import torch

from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.acceleration.timestep_distributions import TableTimes
from policy_accel.acceleration.timesteps import TimestepsConfig
from policy_accel.diffusion.deferred import Deferred
from policy_accel.diffusion.noise import Noise, NoiseChoice
from policy_accel.diffusion.samplers import levels_of
from policy_accel.plugins import (
    register_image_metric,
    register_noise,
    register_rollout_metric,
    register_sampler,
    register_timesteps,
)

LOUDNESS, SAMPLED = [], []


@dataclass
class LateConfig(TimestepsConfig):
    """Noisy times more often than clean ones."""

    name: str = "late"
    power: float = 1.0

    def over(self, process):
        return TableTimes(torch.arange(1, process.timesteps + 1) ** self.power, stratified=self.stratified)


@dataclass
class LoudConfig(NoiseConfig):
    """Noise that is too loud."""

    name: str = "loud"
    factor: float = 2.0

    def build(self):
        return Loud(self.factor)


class Loud(NoiseChoice):
    def __init__(self, factor):
        self.factor = factor

    def begin(self, batch, draw, generator, step):
        LOUDNESS.append(self.factor)
        return Deferred.of(Noise(self.factor * draw()))


def last_guess(predict, x, process, grid):
    """The clean sample that is predicted from pure noise; the other steps change nothing."""
    SAMPLED.append(tuple(x.shape))
    x0, _ = predict(x, levels_of(process, grid)[0][0])
    return x0


register_timesteps(LateConfig)
register_sampler("last_guess", last_guess)
register_noise(LoudConfig)
register_rollout_metric("longest", lambda results: max(result.length for result in results))
register_image_metric("brightness", lambda images, real: abs(float(images.float().mean() - real.float().mean())))
'''
TASK = """
# A point comes to the origin. The second sentence is not listed.
data: reach.npz
observation: [observation]
action: action
environment: OwnReach-v0
environment_module: own_reach
max_steps: 16
"""
METHOD = """
# Noisy times more often.
defaults: [override /acceleration/timesteps: late]
plugins: [own_acceleration]
acceleration: {timesteps: {power: 2.0}}
"""
RECIPE = """
# Seconds on one core.
defaults: [small, override /model: one_layer]
training: {steps: 3, batch_size: 32, device: cpu, optimizer: {warmup_steps: 1}}
evaluation: {episodes: 2, videos: 0, workers: 0}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user's own, which is the current one; what its modules register is forgotten afterwards."""
    sources = {
        "own_reach.py": ENVIRONMENT,
        "own_denoiser.py": DENOISER,
        "own_acceleration.py": ACCELERATION,
        "own/task/reach.yaml": TASK,
        "own/method/late_times.yaml": METHOD,
        "own/recipe/quick.yaml": RECIPE,
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    generator = np.random.default_rng(0)
    places = generator.uniform(-1, 1, (160, 2)).astype(np.float32)
    np.savez(tmp_path / "reach.npz", observations=places, actions=-places, episode_ends=np.arange(20, 161, 20))
    monkeypatch.chdir(tmp_path)
    with forgotten_afterwards():
        yield tmp_path


PATHS = ["task=own/task/reach.yaml", "recipe=own/recipe/quick.yaml", "method=own/method/late_times.yaml"]
NAMES = ["--config-dir", "own", "task=reach", "recipe=quick", "method=late_times"]


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is refused says."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def forget_modules() -> None:
    """As a new process: nothing of the user's is imported."""
    plugins._imported.clear()
    for name in ("own_reach", "own_denoiser", "own_acceleration"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("chosen", [PATHS, NAMES])
def test_what_is_ones_own_is_trained_evaluated_and_loaded_again(
    folder: Path, chosen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *chosen, "plugins=[own_denoiser,own_acceleration]", "run_dir=run"]) == 0
    record = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert (record["task"]["name"], record["label"], record["method"]) == ("reach", "quick", "late_times")
    assert record["acceleration"]["timesteps"] == {"name": "late", "stratified": False, "weight": "none", "power": 2.0}
    assert record["model"] == {"name": "one_layer", "bias": True}
    scored = json.loads((folder / "run" / "evaluation.json").read_text())
    assert scored["metrics"] == {"longest": 16.0}

    for path in (folder / "own").rglob("*.yaml"):
        path.unlink()  # the record is complete
    again = ["evaluate", "run", "--plugins", "own_denoiser,own_acceleration,own_reach", "--videos", "0", "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["score"] == scored["score"]
    policy = Policy.load("run", device="cpu")
    assert type(policy.run.policy.denoiser).__name__ == "OneLayer"
    assert policy.act(np.zeros(2, dtype=np.float32)).shape == (2,)


def test_the_console_script_finds_modules_of_the_current_folder(folder: Path) -> None:
    """Also in the processes of the environments."""
    script = Path(sysconfig.get_path("scripts")) / "policy-accel"
    arguments = [*PATHS, "plugins=[own_denoiser]", "evaluation.workers=1", "run_dir=run"]
    done = subprocess.run([script, "train", *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "longest 16" in done.stdout


def test_a_plugin_may_register_the_environment(folder: Path) -> None:
    named = ["plugins=[own_reach,own_denoiser]", "task.environment_module=policy_accel.envs"]
    assert main(["train", *PATHS, *named, "evaluation.workers=1", "run_dir=run"]) == 0
    assert len(json.loads((folder / "run" / "evaluation.json").read_text())["episodes"]) == 2


def test_a_recorded_run_imports_nothing_that_is_not_named_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *PATHS, "plugins=[own_denoiser]", "run_dir=run"]) == 0
    forget_modules()
    (folder / "own_reach.py").write_text("open('imported', 'w')")
    said = sentence(capsys, "evaluate", "run")
    assert "run/config.yaml has its environment from the module 'own_reach', whose code would run here" in said
    assert not (folder / "imported").exists()
    groups._GROUPS["model", "robot"].choices.pop("one_layer")
    registry._REGISTRY.pop("one_layer")
    said = sentence(capsys, "benchmark", "sample", "run")
    assert "model=one_layer is unknown" in said
    assert "trained with plugins=['own_denoiser']: give --trust" in said
    assert "own_denoiser" not in sys.modules


def test_a_choice_of_noise_and_a_distribution_of_timesteps_of_ones_own_are_used(folder: Path) -> None:
    own = ["acceleration/noise=loud", "acceleration.noise.factor=3.0", "acceleration/timesteps=late"]
    config = ROBOT.config(["task=own/task/reach.yaml", "plugins=[own_acceleration]", *own])
    task = ROBOT.build(config)
    task.to(torch.device("cpu"))
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1, 2)]
    batch = batch_of(task, torch.arange(50).repeat(20) % task.samples, generators[0])
    noised = task.objective.draw(batch, generators[1], generators[2])
    assert sys.modules["own_acceleration"].LOUDNESS == [3.0]
    assert noised.t.double().mean() == pytest.approx(66, abs=3)  # t in proportion to its number; 49.5 when uniform


def test_a_sampler_of_ones_own_draws_the_actions(folder: Path) -> None:
    assert main(["train", *PATHS, "plugins=[own_denoiser]", "sampling.sampler=last_guess", "run_dir=run"]) == 0
    scored = json.loads((folder / "run" / "evaluation.json").read_text())
    assert scored["sampler"] == "last_guess"
    assert sys.modules["own_acceleration"].SAMPLED[0] == (2, 16, 2)
    with pytest.raises(ValueError, match="name=ddim is another sampler"):
        plugins.register_sampler("ddim", print)


def test_a_measure_of_images_of_ones_own_has_its_floor(folder: Path, tmp_path: Path) -> None:
    plugins.import_plugins(["own_acceleration"])
    images = np.random.default_rng(0).integers(0, 200, (60, 3, 16, 16), dtype=np.uint8)
    from policy_accel.images.metrics import CHEAP, MetricsConfig, Quality

    quality = Quality(
        images[:40],
        images[40:],
        MetricsConfig(neighbours=2),
        data_fingerprint="x",
        device="cpu",
        cache_dir=tmp_path / "cache",
    )
    brighter = images[:20] + 50
    measured = quality.measure(brighter)["brightness"]
    assert measured["value"] == pytest.approx(50, abs=5)
    assert measured["floor"] < 5
    assert measured["better"] == "lower"
    assert "brightness" not in quality.measure(brighter, CHEAP)


def test_lists_name_what_is_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks", "--config-dir", "own"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["reach", *["A", "point", "comes", "to", "the", "origin."]] in lines
    assert main(["list", "models", "--plugins", "own_denoiser"]) == 0
    assert "A single layer over the whole chunk." in capsys.readouterr().out


def test_an_entry_point_is_imported_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = folder / "own_package-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[policy_accel.plugins]\nown = own_denoiser\n")
    monkeypatch.syspath_prepend(folder)
    config = ROBOT.config(["model=one_layer", "model.bias=false"])
    assert type(config.model).__name__ == "OneLayerConfig"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task=own/task/reech.yaml"], "task=own/task/reech.yaml: there is no such file."),
        (["--config-dir", "own", "task=reech"], "task=reech is unknown; did you mean 'reach'?"),
        (
            ["--config-dir", "data", "task=reach"],
            "--config-dir data has no YAML file in a folder task,",
        ),
        (
            ["plugins=[own_nothing]"],
            "the plugin 'own_nothing' cannot be imported (ModuleNotFoundError: No module",
        ),
        (["task=list.yaml"], "list.yaml holds no settings; write key: value"),
        (["task=broken.yaml"], "broken.yaml is not a readable YAML file"),
        (["task=wrong.yaml"], "wrong.yaml: the configuration of robot policies has no key 'task.conditional'"),
        (["task=wrong.yaml"], "A file of another track has a line `track: images`."),
        (["task=typed.yaml"], "typed.yaml: Value 'many' of type 'str' could not be converted to Integer"),
        (["task=tracked.yaml"], "tracked.yaml: track 'image' is unknown; did you mean 'images'?"),
        (["task=images.yaml", "recipe=small"], "task=images.yaml is for images and recipe=small is for robot policies"),
        (["recipe=lost.yaml"], "lost.yaml: model=unt is unknown; did you mean 'unet'?"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    for name, text in {
        "list": "[a, b]",
        "broken": "a: [",
        "wrong": "data: x\nobservation: [a]\naction: b\nconditional: true\n",
        "typed": "data: x\nmax_steps: many\n",
        "tracked": "track: image\ndata: x\n",
        "images": "track: images\ndata: x\n",
        "lost": "defaults: [override /model: unt]\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    assert said in sentence(capsys, "train", *arguments)


def test_ones_own_demonstrations_are_diagnosed_with_ones_own_task(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "own" / "task" / "reach.yaml").read_text().replace("data: reach.npz\n", "val_ratio: 0\n")
    (folder / "own" / "task" / "reach.yaml").write_text(text)
    assert main(["diagnose", "reach.npz", "--config-dir", "own", "task=reach", "training.device=cpu"]) == 0
    assert (folder / "diagnosis" / "reach" / "diagnosis.json").is_file()


def test_a_file_says_which_track_it_belongs_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("track: images\ndata: x.npz\nconditional: true\n")
    (folder / "recipe.yaml").write_text("training: {steps: 7}\n")
    assert main(["train", "task=mine.yaml", "recipe=recipe.yaml", "--print-config"]) == 0
    record = yaml.safe_load(capsys.readouterr().out)
    assert (record["track"], record["task"]["name"], record["task"]["conditional"]) == ("images", "mine", True)
    assert (record["label"], record["training"]["steps"]) == ("recipe", 7)
    assert main(["train", "track=images", "recipe=recipe.yaml", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["task"]["name"] == "shapes"


def test_a_file_of_a_folder_does_not_take_a_shipped_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own" / "task" / "lift.yaml").write_text("data: x\n")
    said = sentence(capsys, "train", "--config-dir", "own", "task=lift")
    assert "own/task/lift.yaml has the name of a task of policy_accel; name it otherwise." in said
