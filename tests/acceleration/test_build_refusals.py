"""Settings that make no sense, and batches that lack something, are refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.objectives import FLOW, batch, drawn, settings

from policy_accel.acceleration.assigned_noise import (
    AssignmentConfig,
    ConditionalAssignmentConfig,
    GroupedAssignmentConfig,
)
from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.momentum import (
    MomentumConfig,
    MomentumScheduleConfig,
    NaturalMomentumConfig,
    ReleasedMomentumConfig,
    SigmaMomentumConfig,
)
from policy_accel.acceleration.nearest_noise import NearestNoiseConfig
from policy_accel.acceleration.path import IndependentTimesConfig, SharedPathConfig, TruncatedPathConfig
from policy_accel.acceleration.timesteps import CurriculumConfig, LogitNormalConfig, SpeedConfig, TimestepsConfig
from policy_accel.errors import UserError

EDM = {"diffusion__family": "edm", "diffusion__target": "edm"}
SHORTCUT = {"diffusion__family": "shortcut", "diffusion__target": "flow"}
MIP = {"diffusion__family": "mip", "diffusion__target": "sample"}


@pytest.mark.parametrize("missing", ["groups", "center"])
def test_a_batch_without_what_the_assignment_needs_is_refused(missing: str) -> None:
    noise = {"groups": GroupedAssignmentConfig(), "center": AssignmentConfig(center="ridge")}[missing]
    objective = build_objective(*settings(noise=noise))
    bare = replace(batch(), groups=None, center=None)
    with pytest.raises(ValueError, match=f"^batch has no {missing}, "):
        objective.draw(bare, torch.Generator(), torch.Generator())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"noise": NearestNoiseConfig(candidates=-3)}, "acceleration.noise.candidates=-3 must"),
    ({"noise": NearestNoiseConfig(metric="l2sq")}, "acceleration.noise.metric 'l2sq' is unknown"),
    ({"noise": NearestNoiseConfig(start_score=float("nan"))}, "acceleration.noise.start_score=nan must"),
    ({"noise": AssignmentConfig(metric="dott")}, "acceleration.noise.metric 'dott' is unknown; did you mean 'dot'"),
    ({"noise": AssignmentConfig(block_size=0)}, "acceleration.noise.block_size=0 must"),
    ({"noise": AssignmentConfig(start_step=-1)}, "acceleration.noise.start_step=-1 must"),
    ({"noise": AssignmentConfig(center="rigde")}, "acceleration.noise.center 'rigde' is unknown"),
    ({"noise": AssignmentConfig(center="denoiser")}, "acceleration.noise.center=denoiser reads the sample"),
    ({"noise": AssignmentConfig(center="denoiser"), **EDM}, "acceleration.noise.center=denoiser needs"),
    ({"noise": ConditionalAssignmentConfig(condition_ratio=0.0)}, "acceleration.noise.condition_ratio=0.0 must"),
    ({"noise": GroupedAssignmentConfig(groups=0)}, "acceleration.noise.groups=0 must"),
    ({"noise": NearestNoiseConfig(), "path": SharedPathConfig()}, "acceleration.noise.name=nearest keeps one noise"),
    ({"path": SharedPathConfig(times_per_sample=1)}, "acceleration.path.times_per_sample=1 must"),
    (
        {"path": SharedPathConfig(modes=200)},
        "acceleration.path.modes=200 must be an integer from 1 to diffusion.timesteps=100",
    ),
    ({"path": SharedPathConfig(modes=0)}, "acceleration.path.modes=0 must"),
    ({"path": SharedPathConfig(times_per_sample=2, evaluations=3)}, "acceleration.path.evaluations=3 must"),
    ({"path": SharedPathConfig(), **EDM}, "acceleration.path.name=shared needs"),
    ({"path": TruncatedPathConfig(marginal="row")}, "acceleration.path.marginal 'row' is unknown; did you mean 'raw'"),
    ({"path": TruncatedPathConfig(marginal="matched")}, "acceleration.path.marginal=matched changes nothing"),
    (
        {"path": TruncatedPathConfig(marginal="raw"), "momentum": NaturalMomentumConfig()},
        "acceleration.momentum.name=natural needs a variance-preserving",
    ),
    ({"momentum": ReleasedMomentumConfig()}, "acceleration.momentum.name=released is for the families edm, vp and ve"),
    ({"momentum": NaturalMomentumConfig(), **EDM}, "acceleration.momentum.name=natural needs a process with discrete"),
    ({"momentum": NaturalMomentumConfig(), **FLOW}, "acceleration.momentum.name=natural needs a process with discrete"),
    ({"momentum": MomentumScheduleConfig(), **EDM}, "acceleration.momentum.name=schedule needs a process"),
    ({"momentum": SigmaMomentumConfig(), "diffusion__timesteps": 1}, "acceleration.momentum.name=sigma needs"),
    ({"momentum": MomentumConfig(cap_warmup=5), **FLOW}, "acceleration.momentum.cap_warmup=5"),
    ({"momentum": MomentumConfig(cap_warmup=5), "diffusion__target": "sample"}, "acceleration.momentum.cap_warmup=5"),
    ({"momentum": MomentumConfig(cap_warmup=-5)}, "acceleration.momentum.cap_warmup=-5"),
    ({"momentum": NaturalMomentumConfig(multiplier=0.0)}, "acceleration.momentum.multiplier=0.0 must"),
    ({"momentum": MomentumScheduleConfig(strength=-1.0)}, "acceleration.momentum.strength=-1.0 must"),
    ({"momentum": MomentumScheduleConfig(strength=100.0)}, "acceleration.momentum.strength=100.0 must"),
    ({"momentum": MomentumScheduleConfig(strength=float("nan"))}, "acceleration.momentum.strength=nan must"),
    (
        {
            "momentum": ReleasedMomentumConfig(multiplier=2.0),
            "diffusion__family": "ve",
            "diffusion__target": "negative_epsilon",
        },
        "acceleration.momentum.multiplier=2.0 has no effect",
    ),
    (
        {"timesteps": CurriculumConfig(), **EDM},
        "acceleration.timesteps.name=curriculum is defined over the times of ddpm",
    ),
    ({"timesteps": TimestepsConfig(stratified=True), **FLOW}, "acceleration.timesteps.stratified=true is defined over"),
    ({"timesteps": CurriculumConfig(width=0.0)}, "acceleration.timesteps.width=0.0 must"),
    ({"timesteps": CurriculumConfig(start=0.9, end=0.5)}, "acceleration.timesteps.start=0.9"),
    ({"timesteps": CurriculumConfig(positions="snr")}, "acceleration.timesteps.positions 'snr' is unknown"),
    ({"timesteps": TimestepsConfig(weight="minsnr")}, "acceleration.timesteps.weight 'minsnr' is unknown"),
    ({"timesteps": TimestepsConfig(weight="p2"), **EDM}, "acceleration.timesteps.weight=p2 is a table"),
    ({"noise": NearestNoiseConfig(), **MIP}, "acceleration.noise.name=nearest chooses which noise"),
    ({"noise": AssignmentConfig(), **MIP}, "acceleration.noise.name=assignment chooses which noise"),
    ({"path": SharedPathConfig(), **MIP}, "acceleration.path.name=shared needs"),
    (
        {"path": IndependentTimesConfig(times_per_sample=3), **MIP},
        "acceleration.path.times_per_sample=3 would train one of the two steps of",
    ),
    ({"momentum": NaturalMomentumConfig(), **MIP}, "acceleration.momentum.name=natural needs"),
    ({"momentum": MomentumConfig(cap_warmup=5), **MIP}, "acceleration.momentum.cap_warmup=5"),
    ({"timesteps": CurriculumConfig(), **MIP}, "acceleration.timesteps.name=curriculum is defined over the times of"),
    ({"timesteps": TimestepsConfig(stratified=True), **MIP}, "acceleration.timesteps.stratified=true is defined over"),
    ({"timesteps": TimestepsConfig(weight="p2"), **MIP}, "acceleration.timesteps.weight=p2 is a table"),
    ({**MIP, "diffusion__t_star": 1.5}, "diffusion.t_star=1.5 must"),
    ({**MIP, "diffusion__form": "papre"}, "diffusion.form 'papre' is unknown; did you mean 'paper'?"),
    ({**MIP, "diffusion__target": "flow"}, "diffusion.target 'flow' does not go with this process"),
    ({**SHORTCUT, "diffusion__finest": 100}, "diffusion.finest=100 must be a power of 2"),
    ({**SHORTCUT, "path": IndependentTimesConfig()}, "acceleration.path.name=independent takes several times"),
    ({**SHORTCUT, "path": SharedPathConfig()}, "acceleration.path.name=shared takes several times"),
    ({**SHORTCUT, "momentum": NaturalMomentumConfig()}, "acceleration.momentum.name=natural needs"),
    ({**SHORTCUT, "timesteps": CurriculumConfig()}, "acceleration.timesteps.name=curriculum is defined over the"),
    ({**SHORTCUT, "timesteps": TimestepsConfig(stratified=True)}, "acceleration.timesteps.stratified=true is defined"),
    ({**SHORTCUT, "timesteps": LogitNormalConfig()}, "acceleration.timesteps.name=logit_normal is defined over the"),
    ({**FLOW, "diffusion__finest": 64}, "diffusion.finest=64 has no effect"),
    ({"diffusion__t_star": 0.8}, "diffusion.t_star=0.8 has no effect"),
    ({"diffusion__family": "ddim"}, "diffusion.family 'ddim' is unknown"),
    ({"diffusion__target": "edm"}, "diffusion.target"),
    ({"diffusion__family": "flow", "diffusion__target": "epsilon"}, "diffusion.target"),
    ({"diffusion__timesteps": 0}, "diffusion.timesteps=0 must"),
    ({"diffusion__schedule": "linaer"}, "diffusion.schedule 'linaer' is unknown; did you mean 'linear'?"),
    ({"diffusion__schedule": "linear", "diffusion__beta_end": 2.0}, "diffusion.beta_start=0.0001 and beta_end=2.0"),
    ({**EDM, "diffusion__timesteps": 50}, "diffusion.timesteps=50 has no effect"),
    ({"diffusion__beta_start": 0.001}, "diffusion.beta_start=0.001 has no effect"),
    ({"timesteps": SpeedConfig(), "diffusion__timesteps": 1}, "acceleration.timesteps: alpha_bar: a slope needs"),
    (
        {"timesteps": TimestepsConfig(weight="speed"), "diffusion__timesteps": 2},
        "acceleration.timesteps: log_snr: slopes to compare",
    ),
    ({"data_scale": 0.0}, "acceleration.data_scale=0.0 must"),
    ({"data_scale": float("inf")}, "acceleration.data_scale=inf must"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        build_objective(*settings(**changes))
    assert str(refused.value).startswith(sentence)
    assert str(refused.value).endswith((".", "?"))


def test_what_the_library_refuses_while_training_names_its_argument() -> None:
    """The training core adds the section, acceleration.noise (tests/training/test_feed.py)."""
    noise = ConditionalAssignmentConfig(condition_ratio=1 / 24 + 1e-6)
    with pytest.raises(ValueError, match=r"^condition_ratio=0\.041\d+ leaves all noise in its place in a batch of 24"):
        drawn(build_objective(*settings(noise=noise)))
    spoilt = replace(batch(), x0=batch().x0.index_fill(0, torch.tensor([3]), torch.nan))
    objective = build_objective(*settings(noise=AssignmentConfig()))
    with pytest.raises(ValueError, match=r"^data or noise: the cost of sample 3 .* is not finite"):
        objective.draw(spoilt, torch.Generator(), torch.Generator())
