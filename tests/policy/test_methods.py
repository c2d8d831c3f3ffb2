"""Every method preset trains, resumes with the same bits, and differs from the baseline where it should."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.quick import quick_runs
from support.runs import killed_at
from support.tensors import same

from policy_accel.acceleration.assigned_noise import AssignedNoise
from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.acceleration.momentum_decay import MomentumDecayConfig
from policy_accel.diffusion import UniformTimes
from policy_accel.diffusion.noise import IndependentNoise
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.track import ROBOT

Build = Callable[..., RobotConfig]
METHODS = [name for name in ROBOT.choices()["method"] if name != "baseline"]
# Few windows and small batches: fewer groups, and a share of pairs that a batch of eight has.
SMALL = ["training.optimizer.warmup_steps=1", "training.validate_every=0"]
NEEDS = {
    "immiscible_groups": ["acceleration.noise.groups=6"],
    "immiscible_classes": ["acceleration.noise.groups=6"],
    "everything": ["acceleration.noise.groups=6"],
    "immiscible_c2ot": ["acceleration.noise.condition_ratio=0.4"],
    "immiscible_policy": ["acceleration.noise.start_score=null", "training.evaluate_every=0"],
    "immiscible_denoiser": ["diffusion.target=sample"],
    "fdm_cap": ["diffusion.target=v"],
    "fdm_cap_only": ["diffusion.target=v"],
}


def overrides(method: str) -> list[str]:
    if method == "muon":
        return ["training/optimizer=muon", *SMALL]
    return [f"method={method}", *SMALL, *NEEDS.get(method, [])]


def averaged(run_dir: str) -> dict[str, torch.Tensor]:
    return load_file(Path(run_dir) / "checkpoints" / "00000004" / "ema.safetensors")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_runs():
        yield


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Weights of the baseline by target, made when they are asked for."""
    return {"folder": tmp_path_factory.mktemp("baseline")}


@pytest.mark.parametrize("method", [*METHODS, "muon"])
def test_a_method_trains_and_resumes_with_the_same_bits(
    method: str, tiny_config: Build, tmp_path: Path, baseline: dict[str, Any]
) -> None:
    config = tiny_config(*overrides(method), f"run_dir={tmp_path / 'whole'}")
    ROBOT.train(config)
    whole = averaged(config.run_dir)
    assert all(bool(value.isfinite().all()) for value in whole.values())

    parts = tiny_config(*overrides(method), f"run_dir={tmp_path / 'parts'}")
    parts.training.checkpoint.every = 2
    with killed_at(2) as crash:
        ROBOT.train(parts, after_update=crash)
    ROBOT.train(parts)
    resumed = averaged(str(tmp_path / "parts"))
    assert same(whole, resumed)

    target = config.diffusion.target
    plain = [*SMALL, "method=baseline", *(["diffusion.target=" + target] if config.diffusion.family == "ddpm" else [])]
    key = " ".join(plain)
    if key not in baseline:
        folder = baseline["folder"] / str(len(baseline))
        ROBOT.train(tiny_config(*plain, f"run_dir={folder}"))
        baseline[key] = averaged(str(folder))
    assert same(whole, baseline[key]) == (method == "recommended")


def test_the_baseline_has_every_acceleration_off(tiny_config: Build) -> None:
    config = tiny_config("method=baseline")
    assert config.acceleration == AccelerationConfig()
    assert config.training.optimizer.momentum_decay == MomentumDecayConfig()
    objective = build_objective(config.diffusion, config.acceleration)
    assert isinstance(objective.noise, IndependentNoise)
    assert isinstance(objective.times, UniformTimes)
    assert objective.weights is None


def test_the_papers_settings() -> None:
    def of(method: str) -> dict[str, Any]:

        config = ROBOT.config([f"method={method}"])
        decay = config.training.optimizer.momentum_decay
        return {**asdict(config.acceleration), "decay": decay, "method": config.method}

    noise = of("immiscible")["noise"]
    assert (noise["name"], noise["metric"], noise["block_size"]) == ("assignment", "l2", None)
    knn = of("immiscible_knn")["noise"]
    assert (knn["name"], knn["metric"], knn["candidates"]) == ("nearest", "l2", 2)
    policy = of("immiscible_policy")["noise"]
    assert (policy["standardize"], policy["start_score"], policy["metric"]) == (True, 0.6, "l2")
    for name, width in (("clts", 0.5), ("clts_wide", 1.0), ("clts_sharp", 0.25)):
        timesteps = of(name)["timesteps"]
        assert (timesteps["center"], timesteps["width"], timesteps["positions"]) == (0.3, width, "noise")
    decay = of("momentum_decay")["decay"]
    assert (decay.name, decay.compensate, decay.hold_beta) == ("demon", True, False)
    assert of("momentum_decay_control")["decay"].hold_beta
    assert of("fdm")["momentum"]["name"] == "natural"
    assert of("fdm_edm")["momentum"] == {"name": "released", "multiplier": 2.0, "cap_warmup": 200}
    path = of("kl")["path"]
    assert (path["name"], path["times_per_sample"], path["marginal"]) == ("shared", 4, "matched")
    assert [of(method)["method"] for method in ("kl", "clts")] == ["kl", "clts"]


def test_everything_has_all_four_papers(tiny_config: Build) -> None:
    config = tiny_config(*overrides("everything"))
    default = AccelerationConfig()
    for part in ("noise", "path", "momentum", "timesteps"):
        assert getattr(config.acceleration, part) != getattr(default, part)
    assert config.training.optimizer.momentum_decay.name == "demon"


def test_a_score_is_waited_for_only_where_there_will_be_one(tiny_config: Build) -> None:
    no_score: list[list[str]] = [
        [],
        ["training.evaluate_every=2"],
        ["evaluation.episodes=2", "training.evaluate_every=4"],
        ["evaluation.episodes=2", "training.evaluate_every=2", "task.environment=null"],
    ]
    for options in no_score:
        with pytest.raises(UserError, match=r"start_score=0.6 waits for an evaluation"):
            ROBOT.build(tiny_config("method=immiscible_policy", *options))
    with pytest.raises(UserError, match=r"start_step=4 lies beyond the run of 4 updates"):
        ROBOT.build(tiny_config("method=immiscible", "acceleration.noise.start_step=4"))
    with pytest.raises(UserError, match=r"condition_ratio=0.05 .* 1 / batch_size = 0.125"):
        ROBOT.build(tiny_config("method=immiscible_c2ot"))
    config = tiny_config("method=immiscible_policy", "training.evaluate_every=2", "evaluation.episodes=2")
    noise = ROBOT.build(config).objective.noise
    assert isinstance(noise, AssignedNoise)
    assert not noise.chooses(100)


def test_an_unknown_method_is_named(tiny_config: Build) -> None:
    with pytest.raises(UserError, match=r"method=imiscible is unknown; did you mean 'immiscible'"):
        tiny_config("method=imiscible")


def test_momentum_decay_without_momentum_is_refused(tiny_config: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs momentum to decay"):
        ROBOT.train(tiny_config("method=momentum_decay", "training.optimizer.betas=[0.0,0.999]"))


def test_more_groups_than_windows(tiny_config: Build) -> None:
    with pytest.raises(UserError, match=r"acceleration\.noise\.groups=5000 must lie between 1 and \d+"):
        ROBOT.build(tiny_config("method=immiscible_groups", "acceleration.noise.groups=5000"))


def test_conditions_are_needed_for_the_cost_of_conditions(tiny_config: Build) -> None:
    with pytest.raises(UserError, match=r"name=assignment_by_condition .* policy.conditioning=inpainting"):
        ROBOT.build(tiny_config(*overrides("immiscible_c2ot"), "policy.conditioning=inpainting"))


def test_the_page_of_methods_names_every_method(repository: Path) -> None:
    page = (repository / "docs" / "how_to" / "choose_a_method.md").read_text()
    table = page[page.index("| `method=` |") :].split("\n\n", 1)[0]
    assert set(METHODS) <= set(re.findall(r"`(\w+)`", table))
