"""From settings to an objective: neutral settings are the baseline bit for bit, senseless ones are refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.acceleration.time_laws import CurriculumTimes
from policy_accel.diffusion import (
    Batch,
    FlowProcess,
    Noised,
    Objective,
    Path,
    SigmaProcess,
    make_noised,
    momentum_input_scale,
    vp_process,
)
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.errors import UserError


def settings(**changes: Any) -> tuple[DiffusionConfig, AccelerationConfig]:
    """Default settings but for `section__field=value`; `diffusion__target` and the like are the diffusion's."""
    diffusion, acceleration = DiffusionConfig(), AccelerationConfig()
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        owner = diffusion if section == "diffusion" else getattr(acceleration, section) if section else acceleration
        assert hasattr(owner, field), name
        setattr(owner, field, value)
    return diffusion, acceleration


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(24, 4, 3, generator=generator)
    return Batch(x0, condition=torch.randn(24, 2, 5, generator=generator), groups=torch.arange(24) // 6)


def drawn(objective: Objective, step: int = 0, progress: float = 0.0) -> Noised:
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    return objective.draw(batch(), time, noise, step=step, progress=progress)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
def test_everything_off_is_the_baseline(target: str) -> None:
    """Ho et al. 2020, algorithm 1, written straight."""
    noised = drawn(build_objective(*settings(diffusion__target=target)))
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    x0 = batch().x0
    t = torch.randint(100, (24,), generator=time)
    epsilon = torch.randn(24, 4, 3, generator=noise)
    process = vp_process("squaredcos_cap_v2", 100)
    alpha, sigma = (table[t].float().view(-1, 1, 1) for table in (process.alphas, process.sigmas))
    assert torch.equal(noised.t, t)
    assert torch.equal(noised.x_t, alpha * x0 + sigma * epsilon)
    expected = {"epsilon": epsilon, "sample": x0, "v": alpha * epsilon - sigma * x0}[target]
    assert torch.equal(noised.target, expected)
    assert torch.equal(noised.model_input, noised.x_t)
    assert noised.weight is None
    assert noised.repeats == 1


@pytest.mark.parametrize(
    "neutral",
    [
        {"noise__choice": "nearest", "noise__candidates": 1},
        {"noise__choice": "assignment", "noise__block_size": 1},
        {"noise__choice": "assignment", "noise__start_step": 1},
        {"noise__choice": "nearest", "noise__start_score": 0.5},
        {"path__coupling": "fresh", "path__times_per_sample": 3},
    ],
)
def test_neutral_settings_equal_the_baseline_bit_for_bit(neutral: dict[str, Any]) -> None:
    """`fresh` is neutral here: it asks for a larger batch and changes nothing about the draw."""
    baseline, other = drawn(build_objective(*settings())), drawn(build_objective(*settings(**neutral)))
    for name in ("x_t", "t", "target", "model_input"):
        assert torch.equal(getattr(baseline, name), getattr(other, name)), name
    assert other.weight is None


def test_a_curriculum_of_no_strength_weighs_every_time_alike() -> None:
    objective = build_objective(
        *settings(timesteps__law="curriculum", timesteps__strength=0.0, timesteps__unbiased=True)
    )
    weight = drawn(objective, progress=1.0).weight
    assert weight is not None
    torch.testing.assert_close(weight, torch.ones(24, dtype=torch.float64))


def test_validation_is_drawn_plainly_whatever_accelerates_the_training() -> None:
    baseline = build_objective(*settings())
    accelerated = build_objective(
        *settings(
            noise__choice="assignment",
            path__times_per_sample=4,
            timesteps__law="curriculum",
            timesteps__weight="min_snr",
        )
    )
    plain, other = drawn(baseline), drawn(accelerated.plain())
    assert torch.equal(plain.x_t, other.x_t)
    assert torch.equal(plain.t, other.t)
    assert other.weight is None
    assert not torch.equal(drawn(accelerated).x_t[:24], plain.x_t)


@pytest.mark.parametrize(
    ("choice", "extra"),
    [
        ("batch", {}),
        ("groups", {}),
        ("condition", {"noise__condition_ratio": 0.2, "noise__metric": "l2sq"}),
    ],
)
def test_assignment_permutes_the_noise_and_nothing_else(choice: str, extra: dict[str, Any]) -> None:
    options = {"noise__choice": "assignment", "noise__within": choice, "diffusion__target": "epsilon", **extra}
    baseline, assigned = drawn(build_objective(*settings())), drawn(build_objective(*settings(**options)))
    pool, received = baseline.target.flatten(1), assigned.target.flatten(1)
    equal = (received[:, None] == pool[None]).all(-1)
    assert bool((equal.sum(0) == 1).all())
    assert bool((equal.sum(1) == 1).all())
    permutation = equal.int().argmax(1)
    assert not torch.equal(permutation, torch.arange(24))
    assert torch.equal(assigned.t, baseline.t)
    x0 = batch().x0.flatten(1)
    assert float((x0 - received).norm(dim=1).sum()) < float((x0 - pool).norm(dim=1).sum())
    if choice == "groups":
        assert torch.equal(permutation // 6, torch.arange(24) // 6)
    again = make_noised(vp_process(), batch().x0, assigned.target, assigned.t, "epsilon")
    assert torch.equal(again.x_t, assigned.x_t)


def test_a_path_keeps_its_times_when_it_is_assigned() -> None:
    options = {"path__times_per_sample": 3, "timesteps__stratified": True}
    plain = drawn(build_objective(*settings(**options)))
    moved = drawn(build_objective(*settings(**options, noise__choice="assignment")))
    shape = (24, 3, -1)
    rows = torch.cat([plain.target.view(shape), plain.t.view(24, 3, 1).float()], 2).flatten(1)
    received = torch.cat([moved.target.view(shape), moved.t.view(24, 3, 1).float()], 2).flatten(1)
    equal = (received[:, None] == rows[None]).all(-1)
    assert bool((equal.sum(0) == 1).all())
    assert not bool(equal.diagonal().all())
    recovered = make_noised(vp_process(), batch().x0.repeat_interleave(3, 0), moved.target, moved.t, "epsilon")
    assert torch.equal(recovered.x_t, moved.x_t)


@pytest.mark.parametrize("coupling", ["shared", "independent"])
def test_several_times_of_a_sample(coupling: str) -> None:
    objective = build_objective(
        *settings(path__times_per_sample=4, path__coupling=coupling, timesteps__stratified=True)
    )
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    x0 = torch.zeros(4000, 1)
    noised = objective.draw(Batch(x0), time, noise)
    assert noised.repeats == 4
    t, epsilon = noised.t.view(4000, 4), noised.target.view(4000, 4)
    assert torch.equal(t // 25, torch.arange(4).expand(4000, 4))
    torch.testing.assert_close(epsilon.var(0), torch.ones(4), atol=3 * (2 / 4000) ** 0.5, rtol=0)
    correlation = float((epsilon[:, 2] * epsilon[:, 3]).mean())
    if coupling == "independent":
        assert abs(correlation) < 3 / 4000**0.5
    else:
        assert correlation > 0.3


def test_a_subset_of_the_times_is_evaluated() -> None:
    objective = build_objective(*settings(path__times_per_sample=4, path__evaluations=2, timesteps__stratified=True))
    noised = objective.draw(Batch(torch.zeros(4000, 1)), torch.Generator().manual_seed(1), torch.Generator())
    assert noised.repeats == 2
    strata = (noised.t // 25).view(4000, 2)
    assert bool((strata[:, 0] != strata[:, 1]).all())
    counts = torch.bincount(strata.flatten(), minlength=4).double() / 2000
    torch.testing.assert_close(counts, torch.ones(4, dtype=torch.float64), atol=0.06, rtol=0)


def test_fdm_scales_the_input_and_leaves_the_rest() -> None:
    baseline = drawn(build_objective(*settings()))
    scaled = drawn(build_objective(*settings(momentum__input_scale="natural")))
    assert torch.equal(scaled.x_t, baseline.x_t)
    assert torch.equal(scaled.target, baseline.target)
    abar = vp_process().alphas.square()[baseline.t]
    gain = (0.5 * abar.log()).exp() * (1 - abar.log())
    torch.testing.assert_close(scaled.model_input, gain.float().view(-1, 1, 1) * baseline.x_t)


def test_the_weight_cap_follows_the_step_and_goes() -> None:
    objective = build_objective(*settings(momentum__cap_warmup=10))
    process = vp_process()
    for step, cap in ((0, 5.0), (5, 50.0)):
        noised = drawn(objective, step)
        expected = (cap * (process.sigmas / process.alphas)[noised.t].square()).clamp(max=1)
        assert noised.weight is not None
        torch.testing.assert_close(noised.weight, expected)
    assert drawn(objective, 10).weight is None


@pytest.mark.parametrize("family", ["edm", "vp", "ve"])
def test_the_sigma_families_equal_the_straight_formulas(family: str) -> None:
    """w(sigma) |D - y|^2 with D = c_skip x + c_out F (Karras et al. 2022, equation 8) is what the example says of F."""
    target = {"edm": "edm", "vp": "epsilon", "ve": "negative_epsilon"}[family]
    objective = build_objective(
        *settings(
            diffusion__family=family,
            diffusion__target=target,
            momentum__input_scale="momentum",
            momentum__multiplier=1.0 if family == "ve" else 2.0,
            momentum__cap_warmup=10,
        )
    )
    noised = drawn(objective, step=5)
    process = objective.process
    assert isinstance(process, SigmaProcess)
    x0 = batch().x0.double()
    sigma = process.draw_times((24,), torch.Generator().manual_seed(1), "cpu")
    epsilon = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(2)).double()
    shape = (-1, 1, 1)
    x = x0 + sigma.view(shape) * epsilon
    at = process.preconditioning(sigma)
    network = torch.randn(24, 4, 3, dtype=torch.float64)
    denoised = at.c_skip.view(shape) * x + at.c_out.view(shape) * network
    weight = 1 / sigma**2 + (4.0 if family == "edm" else 0.0)
    straight = weight.clamp(max=50.0).view(shape) * (denoised - x0).square()
    assert noised.weight is not None
    ours = noised.weight.view(shape) * (network - noised.target.double()).square()
    torch.testing.assert_close(ours, straight, rtol=2e-3, atol=1e-4)
    scale = momentum_input_scale(sigma, family=family, multiplier=2.0).view(shape)
    torch.testing.assert_close(noised.model_input.double(), scale * x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(noised.t.double(), at.c_noise)


def test_flow_is_a_straight_line() -> None:
    noised = drawn(build_objective(*settings(diffusion__family="flow", diffusion__target="flow")))
    u = noised.t.float().view(-1, 1, 1) / 1000
    epsilon = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(2))
    x0 = batch().x0
    torch.testing.assert_close(noised.x_t, (1 - u) * x0 + u * epsilon, rtol=1e-5, atol=1e-5)
    assert torch.equal(noised.target, epsilon - x0)
    assert bool(((u > 0) & (u < 1)).all())


def test_data_scale_scales_the_data_alone() -> None:
    noised = drawn(build_objective(*settings(data_scale=2.0, diffusion__target="sample")))
    assert torch.equal(noised.target, 2 * batch().x0)
    epsilon = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(2))
    expected = make_noised(vp_process(), 2 * batch().x0, epsilon, noised.t, "sample").x_t
    assert torch.equal(noised.x_t, expected)


def test_flow_may_draw_its_times_logit_normally() -> None:
    flow = {"diffusion__family": "flow", "diffusion__target": "flow"}
    objective = build_objective(*settings(**flow, timesteps__law="logit_normal"))
    noised = objective.draw(torch.zeros(20_000, 1), torch.Generator().manual_seed(0), torch.Generator())
    logit = torch.logit(noised.t.double() / 1000)
    assert abs(float(logit.mean())) < 0.03
    assert abs(float(logit.std()) - 1) < 0.03


def test_a_schedule_of_one_time_each_is_plain_noise_of_that_schedule() -> None:
    """With one time a path's noise is one normal number an entry, so every choice of noise composes with it."""
    truncated = {"path__modes": 4, "path__marginal": "vp_equivalent"}
    plain, nearest = (
        drawn(build_objective(*settings(**truncated, **extra)))
        for extra in ({}, {"noise__choice": "nearest", "noise__candidates": 16})
    )
    process = build_objective(*settings(**truncated)).process
    again = make_noised(process, batch().x0, plain.target, plain.t, "epsilon")
    assert torch.equal(again.x_t, plain.x_t)
    x0 = batch().x0
    assert float((nearest.target * x0).mean()) > float((plain.target * x0).mean()) + 0.1


@pytest.mark.parametrize("missing", ["groups", "center"])
def test_a_batch_without_what_the_assignment_needs_is_refused(missing: str) -> None:
    options = {"groups": {"noise__within": "groups"}, "center": {"noise__center": "ridge"}}[missing]
    objective = build_objective(*settings(noise__choice="assignment", **options))
    bare = replace(batch(), groups=None, center=None)
    with pytest.raises(UserError, match=f"Batch.{missing}, and the batch has none"):
        objective.draw(bare, torch.Generator(), torch.Generator())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"times": CurriculumTimes(50)}, "times draws from 50 discrete times, and the process has 100 discrete times"),
        ({"weights": torch.ones(7)}, "weights is a table of (7,) weights"),
        ({"path": Path(2)}, "path with times_per_sample=2 and coupling=shared needs a KarhunenLoeveProcess"),
        (
            {"cap_warmup": 3, "target": "sample"},
            "target=sample does not have here; set it to 0, or choose epsilon or v.",
        ),
        ({"process": SigmaProcess("edm"), "target": "edm", "times": CurriculumTimes(100)}, "has continuous time"),
        ({"process": SigmaProcess("edm"), "target": "edm", "weights": torch.ones(100)}, "has continuous time"),
        (
            {"process": FlowProcess(), "target": "flow", "cap_warmup": 3},
            "target=flow does not have here; set it to 0.",
        ),
    ],
)
def test_an_objective_made_by_hand_is_checked_too(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Objective(**{"process": vp_process(), **options})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ((0,), "^times_per_sample=0 must"),
        ((2, "foo"), "^coupling 'foo' is unknown"),
        ((2, "independent", 5), "^evaluations=5 must lie between 1 and times_per_sample=2"),
        ((2, "fresh", 1), "^evaluations=1 leaves out .*coupling=fresh"),
    ],
)
def test_a_path_made_by_hand_is_checked_too(wrong: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Path(*wrong)


def test_residual_coupling_looks_at_the_residual() -> None:
    """With the data as their own centre nothing is left to assign by, and the shift does not matter."""
    objective = build_objective(*settings(noise__choice="assignment", noise__center="ridge", noise__metric="dot"))
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    whole = batch()
    centered = objective.draw(replace(whole, x0=whole.x0 + 5, center=torch.full_like(whole.x0, 5.0)), time, noise)
    plain = drawn(build_objective(*settings(noise__choice="assignment", noise__metric="dot")))
    assert torch.equal(centered.target, plain.target)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"noise__choice": "knn"}, "acceleration.noise.choice 'knn' is unknown"),
    ({"noise__choice": "nearest", "noise__candidates": -3}, "candidates=-3"),
    ({"noise__choice": "nearest", "noise__metric": "l2sq"}, "choose l2 or dot"),
    ({"noise__choice": "assignment", "noise__metric": "dott"}, "did you mean 'dot'"),
    ({"noise__choice": "assignment", "noise__block_size": 0}, "block_size=0"),
    (
        {"noise__within": "groups"},
        "acceleration.noise.within=groups has no effect with acceleration.noise.choice=indep",
    ),
    ({"noise__standardize": True}, "leave it at false"),
    ({"noise__choice": "assignment", "noise__within": "group"}, "did you mean 'groups'"),
    ({"noise__choice": "assignment", "noise__within": "condition"}, "metric=l2sq"),
    (
        {
            "noise__choice": "assignment",
            "noise__within": "condition",
            "noise__metric": "l2sq",
            "noise__block_size": 8,
        },
        "block_size does not go with within=condition",
    ),
    ({"noise__choice": "assignment", "noise__center": "denoiser"}, "diffusion.target=epsilon does not tell"),
    (
        {
            "noise__choice": "assignment",
            "noise__center": "denoiser",
            "diffusion__target": "edm",
            "diffusion__family": "edm",
        },
        "center=denoiser",
    ),
    (
        {"noise__choice": "assignment", "noise__within": "condition", "noise__condition_ratio": 0.0},
        "condition_ratio=0.0",
    ),
    ({"noise__choice": "assignment", "noise__within": "groups", "noise__groups": 0}, "groups=0"),
    ({"noise__start_step": -1}, "start_step=-1"),
    ({"path__times_per_sample": 0}, "times_per_sample=0"),
    ({"path__times_per_sample": 4, "path__modes": 200}, "modes=200 is more than diffusion.timesteps=100"),
    ({"path__modes": 0, "path__times_per_sample": 2}, "modes"),
    ({"path__coupling": "none"}, "acceleration.path.coupling 'none' is unknown"),
    ({"path__times_per_sample": 2, "path__evaluations": 3}, "evaluations=3"),
    ({"path__times_per_sample": 2, "path__evaluations": 1, "path__coupling": "fresh"}, "coupling=fresh"),
    ({"path__times_per_sample": 2, "path__coupling": "independent", "path__modes": 2}, "modes=2 has no effect"),
    ({"path__marginal": "raw"}, "set acceleration.path.modes"),
    ({"path__marginal": "row", "path__modes": 3}, "did you mean 'raw'"),
    ({"path__times_per_sample": 2, "noise__choice": "nearest"}, "coupling=independent"),
    ({"path__times_per_sample": 2, "diffusion__family": "edm", "diffusion__target": "edm"}, "coupling=independent"),
    ({"path__modes": 3, "path__marginal": "raw", "momentum__input_scale": "natural"}, "variance-preserving"),
    ({"momentum__input_scale": "naturel"}, "did you mean 'natural'"),
    ({"momentum__input_scale": "momentum"}, "choose base, natural, sigma or one"),
    ({"momentum__input_scale": "natural", "diffusion__family": "edm", "diffusion__target": "edm"}, "momentum or one"),
    ({"momentum__input_scale": "natural", "diffusion__family": "flow", "diffusion__target": "flow"}, "FDM is not"),
    ({"momentum__cap_warmup": 5, "diffusion__family": "flow", "diffusion__target": "flow"}, "FDM is not"),
    (
        {"momentum__cap_warmup": 5, "diffusion__target": "sample"},
        "target=sample does not have here; set it to 0, or choose epsilon or v.",
    ),
    ({"momentum__cap_warmup": -5}, "cap_warmup=-5"),
    ({"momentum__input_scale": "natural", "momentum__multiplier": 0.0}, "multiplier=0.0"),
    ({"momentum__schedule_strength": -1.0}, "schedule_strength=-1.0"),
    ({"momentum__schedule_strength": 1.0, "diffusion__family": "edm", "diffusion__target": "edm"}, "has no effect"),
    ({"timesteps__law": "curricula"}, "did you mean 'curriculum'"),
    ({"timesteps__law": "curriculum", "diffusion__family": "edm", "diffusion__target": "edm"}, "continuous law"),
    ({"timesteps__stratified": True, "diffusion__family": "flow", "diffusion__target": "flow"}, "continuous law"),
    ({"timesteps__law": "curriculum", "timesteps__width": 0.0}, "width=0.0"),
    ({"timesteps__law": "curriculum", "timesteps__start": 0.9, "timesteps__end": 0.5}, "start=0.9"),
    ({"timesteps__unbiased": True}, "unbiased=True has no effect with acceleration.timesteps.law=uniform"),
    ({"timesteps__positions": "snr"}, "acceleration.timesteps.positions 'snr' is unknown"),
    ({"timesteps__weight": "minsnr"}, "did you mean 'min_snr'"),
    ({"timesteps__weight": "p2", "diffusion__family": "edm", "diffusion__target": "edm"}, "has its own weight"),
    ({"diffusion__family": "ddim"}, "diffusion.family 'ddim' is unknown"),
    (
        {"diffusion__target": "edm"},
        "diffusion.target 'edm' does not go with this process; known are: epsilon",
    ),
    ({"diffusion__family": "flow", "diffusion__target": "epsilon"}, "known are: flow, sample."),
    ({"data_scale": 0.0}, "data_scale=0.0"),
    ({"data_scale": float("inf")}, "data_scale=inf"),
    ({"noise__candidates": 4}, "candidates=4 has no effect"),
    ({"noise__choice": "assignment", "noise__candidates": 4}, "candidates=4 has no effect"),
    (
        {"noise__choice": "assignment", "noise__groups": 4},
        "groups=4 has no effect with acceleration.noise.within=batch",
    ),
    ({"noise__choice": "nearest", "noise__block_size": 4}, "block_size=4 has no effect"),
    ({"noise__start_score": 0.5}, "start_score=0.5 has no effect"),
    ({"noise__choice": "nearest", "noise__start_score": float("nan")}, "start_score=nan"),
    ({"path__coupling": "fresh"}, "coupling=fresh has no effect"),
    ({"path__modes": 7}, "modes=7 has no effect"),
    (
        {"path__times_per_sample": 2, "path__coupling": "fresh", "path__clock": "variance"},
        "clock=variance has no effect",
    ),
    ({"momentum__multiplier": 2.0}, "multiplier=2.0 has no effect"),
    ({"momentum__input_scale": "one", "momentum__multiplier": 2.0}, "multiplier=2.0 has no effect"),
    (
        {
            "diffusion__family": "ve",
            "diffusion__target": "negative_epsilon",
            "momentum__input_scale": "momentum",
            "momentum__multiplier": 2.0,
        },
        "multiplier=2.0 has no effect",
    ),
    ({"momentum__schedule_strength": 100.0}, "schedule_strength=100.0"),
    ({"momentum__schedule_strength": float("nan")}, "schedule_strength=nan"),
    ({"timesteps__law": "speed", "timesteps__width": 0.2}, "width=0.2 has no effect"),
    ({"timesteps__width": 0.2, "diffusion__family": "edm", "diffusion__target": "edm"}, "width=0.2 has no effect"),
    (
        {"diffusion__family": "edm", "diffusion__target": "edm", "diffusion__timesteps": 50},
        "timesteps=50 has no effect",
    ),
    ({"diffusion__beta_start": 0.001}, "beta_start=0.001 has no effect"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        build_objective(*settings(**changes))
    assert sentence in str(refused.value)
    assert str(refused.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"diffusion__timesteps": 0}, "diffusion.timesteps=0 must"),
        ({"diffusion__schedule": "linaer"}, "diffusion.schedule 'linaer' is unknown; did you mean 'linear'?"),
        ({"diffusion__schedule": "linear", "diffusion__beta_end": 2.0}, "diffusion.beta_start=0.0001 and beta_end=2.0"),
        ({"path__times_per_sample": 0}, "acceleration.path.times_per_sample=0 must"),
        ({"path__coupling": "none"}, "acceleration.path.coupling 'none' is unknown"),
        (
            {"path__times_per_sample": 2, "path__modes": 200},
            "acceleration.path.modes=200 is more than diffusion.timesteps=100;",
        ),
        ({"path__modes": 3, "path__marginal": "row"}, "acceleration.path.marginal 'row' is unknown"),
        ({"timesteps__law": "curriculum", "timesteps__width": -1.0}, "acceleration.timesteps.width=-1.0 must"),
        ({"timesteps__weight": "minsnr"}, "acceleration.timesteps.weight 'minsnr' is unknown"),
        ({"timesteps__weight": "min_snr", "diffusion__target": "edm"}, "diffusion.target=edm has no min_snr weight"),
        ({"timesteps__law": "speed", "diffusion__timesteps": 1}, "acceleration.timesteps: alpha_bar: a slope needs"),
        (
            {"timesteps__weight": "speed", "diffusion__timesteps": 2},
            "acceleration.timesteps: log_snr: slopes to compare",
        ),
        ({"momentum__cap_warmup": -5}, "acceleration.momentum.cap_warmup=-5 must"),
        ({"data_scale": 0.0}, "acceleration.data_scale=0.0 must"),
        (
            {"momentum__input_scale": "sigma", "diffusion__timesteps": 1},
            "acceleration.momentum.input_scale=sigma needs a base of at least 2 timesteps",
        ),
    ],
)
def test_what_the_library_refuses_names_the_setting(changes: dict[str, Any], start: str) -> None:
    with pytest.raises(UserError) as refused:
        build_objective(*settings(**changes))
    assert str(refused.value).startswith(start)


def test_what_the_library_refuses_while_training_names_the_setting() -> None:
    ratio = {"noise__within": "condition", "noise__metric": "l2sq", "noise__condition_ratio": 1 / 24 + 1e-6}
    objective = build_objective(*settings(noise__choice="assignment", **ratio))
    with pytest.raises(
        UserError,
        match=r"^acceleration\.noise\.condition_ratio=0\.041\d+ leaves all noise in its place in a batch of 24",
    ):
        drawn(objective)
    spoilt = replace(batch(), x0=batch().x0.index_fill(0, torch.tensor([3]), torch.nan))
    objective = build_objective(*settings(noise__choice="assignment"))
    with pytest.raises(UserError, match=r"^acceleration\.noise: data, .* the cost of sample 3 .* is not finite"):
        objective.draw(spoilt, torch.Generator(), torch.Generator())
