from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support.tensors import f64
from torch import Tensor

from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.objective import make_noised
from policy_accel.diffusion.predictions import edm_coefficients, predicted_sample, sample_coefficients
from policy_accel.diffusion.processes import CLEAN

# sigma, edm c_skip, c_out, c_noise, vp c_noise, ve c_noise
PRECONDITIONERS = [
    (0.02, 0.998403, 0.019984, -0.978006, 3.06128, -4.60517),
    (0.1, 0.961538, 0.0980581, -0.575646, 26.9679, -2.99573),
    (0.5, 0.5, 0.353553, -0.173287, 144.669, -1.38629),
    (1.0, 0.2, 0.447214, 0.0, 258.701, -0.693147),
    (2.0, 0.0588236, 0.485071, 0.173287, 396.794, 0.0),
    (5.0, 0.00990099, 0.497519, 0.402359, 566.659, 0.916291),
    (10.0, 0.00249374, 0.499376, 0.575646, 675.369, 1.60944),
    (20.0, 6.24597e-4, 0.499844, 0.748933, 770.37, 2.30259),
    (40.0, 1.56224e-4, 0.499961, 0.92222, 855.264, 2.99573),
    (80.0, 3.9041e-5, 0.49999, 1.09551, 932.578, 3.68888),
]


def draws(process: SigmaProcess | FlowProcess, count: int = 400_000) -> Tensor:
    times = process.draw_times((count,), torch.Generator().manual_seed(0), "cpu")
    assert times.dtype == torch.float64
    assert times.shape == (count,)
    return times


def assert_mean(values: Tensor, expected: float) -> None:
    error = float(values.std()) / math.sqrt(len(values))
    assert float(values.mean()) == pytest.approx(expected, abs=3 * error)


def normal_moment_below(bound: float) -> float:
    """E[min(exp(-2 y), bound)] for y ~ N(-1.2, 1.2^2), in closed form."""

    def phi(value: float) -> float:
        return 0.5 * math.erfc(-value / math.sqrt(2))

    mean, deviation = 2.4, 2.4
    edge = (math.log(bound) - mean) / deviation
    return math.exp(mean + deviation**2 / 2) * phi(edge - deviation) + bound * phi(-edge)


@pytest.mark.parametrize("row", PRECONDITIONERS, ids=lambda row: f"sigma={row[0]}")
def test_preconditioners(row: tuple[float, ...]) -> None:
    sigma, c_skip, c_out, edm_noise, vp_noise, ve_noise = row
    edm, vp, ve = (SigmaProcess(family) for family in ("edm", "vp", "ve"))
    at = f64(sigma)
    skip, out = (float(value) for value in edm_coefficients(at))
    # The listed values were read off a float32 network: c_skip from a difference, vp's time with a cancelling root.
    assert skip == pytest.approx(c_skip, rel=1e-6, abs=1e-7)
    assert skip == pytest.approx(0.25 / (sigma**2 + 0.25), rel=1e-12)
    assert out == pytest.approx(c_out, rel=6e-6)
    assert float(vp.c_noise(at)) == pytest.approx(vp_noise, rel=6e-6, abs=4e-4)
    assert [float(edm.c_noise(at)), float(ve.c_noise(at))] == pytest.approx([edm_noise, ve_noise], rel=6e-6, abs=1e-12)
    assert [float(process.c_in(at)) for process in (edm, vp, ve)] == pytest.approx(
        [(sigma**2 + 0.25) ** -0.5, (sigma**2 + 1) ** -0.5, 1.0], rel=1e-12
    )


def test_time_told_at_the_noisy_end_and_near_zero() -> None:
    vp = SigmaProcess("vp")
    assert float(vp.c_noise(f64(152))) == pytest.approx(998.89, abs=5e-3)
    assert float(vp.c_noise(f64(152.16697))) == pytest.approx(999.0, abs=1e-4)
    assert float(SigmaProcess("ve").c_noise(f64(100))) == pytest.approx(3.91202, abs=5e-6)
    t = f64(1e-8, 1e-5, 0.3, 1.0)
    sigma = torch.expm1(0.1 * t + 9.95 * t.square()).sqrt()
    torch.testing.assert_close(vp.c_noise(sigma), 999 * t, rtol=1e-12, atol=0)


@pytest.mark.parametrize("family", ["edm", "vp", "ve"])
@pytest.mark.parametrize("input_scale", ["base", "momentum", "one"])
def test_input_scale_changes_the_input_only(family: str, input_scale: str) -> None:
    sigma = f64(0.01, 0.5, 7.0, 60.0)
    base, ours = SigmaProcess(family), SigmaProcess(family, input_scale, multiplier=2.0)
    assert torch.equal(ours.c_noise(sigma), base.c_noise(sigma))
    if input_scale == "one":
        expected = torch.ones_like(sigma)
    elif input_scale == "base":
        expected = base.c_in(sigma)
    else:
        low, high = {"edm": (0.002, 80), "vp": (1.0004975994e-3, 152.166970), "ve": (0.02, 100)}[family]
        position = (sigma - low) / (high - low)
        u = (1.0 if family == "ve" else 2.0) * (0.1 * position + 9.95 * position**2)
        expected = (1 + u) * (-u).exp()
    torch.testing.assert_close(ours.c_in(sigma), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "multiplier", "x", "c_in", "network_input", "denoised", "loss"),
    [
        (0.5, 2, 1.05, 0.9999979702, 1.0499978687, 0.8962303066, 2.843924628),
        (5, 2, 7.8, 0.9961708818, 7.7701328777, 3.9430133158, 53.617045918),
        (20, 2, 30.3, 0.6291065571, 19.0619286814, 9.5469129812, 342.235362226),
        (20, 1, 30.3, 0.8624672749, 26.1327584290, 13.0812235550, 653.847101438),
    ],
)
def test_end_to_end_with_an_identity_network(
    sigma: float, multiplier: float, x: float, c_in: float, network_input: float, denoised: float, loss: float
) -> None:
    process = SigmaProcess("edm", "momentum", multiplier)
    c_skip, c_out = edm_coefficients(f64(sigma))
    scale = process.c_in(f64(sigma))
    noisy = process.diffuse(f64(0.3), f64(1.5), f64(sigma))
    estimate = c_skip * noisy + c_out * (scale * noisy)
    error = process.sample_weight(f64(sigma)) * (estimate - 0.3).square()
    ours = [float(value) for value in (noisy, scale, scale * noisy, estimate, error)]
    assert ours == pytest.approx([x, c_in, network_input, denoised, loss], rel=2e-10)


def test_weights() -> None:
    listed = {0.002: 250004, 0.1: 104, 0.5: 8, 1: 5, 2: 4.25, 80: 4.00015625}
    for sigma, weight in listed.items():
        assert float(SigmaProcess("edm").sample_weight(f64(sigma))) == pytest.approx(weight, rel=1e-12)
        assert float(SigmaProcess("vp").sample_weight(f64(sigma))) == pytest.approx(sigma**-2, rel=1e-12)
        assert float(SigmaProcess("ve").sample_weight(f64(sigma))) == pytest.approx(sigma**-2, rel=1e-12)
    for family in ("edm", "vp", "ve"):
        sigmas, process = f64(0.01, 0.4, 9.0), SigmaProcess(family)
        c_out = edm_coefficients(sigmas)[1] if family == "edm" else sigmas
        in_terms_of_f = process.sample_weight(sigmas) * c_out.square()
        torch.testing.assert_close(in_terms_of_f, torch.ones_like(sigmas))


@pytest.mark.parametrize(("cap", "binds_below"), [(5.0, 1.0), (50.0, 0.147442), (500.0, 0.0449013)])
def test_cap_binds_below(cap: float, binds_below: float) -> None:
    assert float(SigmaProcess().sample_weight(f64(binds_below))) == pytest.approx(cap, rel=2e-5)


def test_loss_weight_is_on_the_error_of_the_prediction() -> None:
    """The slope of x0 in the prediction, from `predicted_sample` itself, turns one weight into the other."""
    process, sigmas = SigmaProcess("edm"), f64(0.01, 0.4, 9.0)
    levels = [process.level(sigma) for sigma in sigmas.tolist()]
    for target in process.targets:
        x0 = [predicted_sample(f64(0.0, 1.0), f64(1.0, 1.0), level, target) for level in levels]
        slope = torch.stack(x0).diff().flatten()
        for cap in (None, 50.0):
            expected = process.sample_weight(sigmas).clamp(max=cap or math.inf) * slope.square()
            torch.testing.assert_close(process.loss_weight(sigmas, target, cap), expected)


@pytest.mark.parametrize(("cap", "mean"), [(5.0, 4.91), (50.0, 23.7), (500.0, 72.7)])
def test_mean_capped_weight_under_the_training_law(cap: float, mean: float) -> None:
    expected = 4 + normal_moment_below(cap - 4)
    assert expected == pytest.approx(mean, rel=2e-3)
    assert_mean(SigmaProcess().sample_weight(draws(SigmaProcess())).clamp(max=cap), expected)


def test_training_laws() -> None:
    edm, vp, ve = (draws(SigmaProcess(family)).log() for family in ("edm", "vp", "ve"))
    assert_mean(edm, -1.2)
    assert_mean((edm + 1.2).square(), 1.44)
    # VP: t is uniform, so every tenth of [1e-5, 1] holds a tenth of the draws.
    decay = torch.log1p((2 * vp).exp())
    t = ((0.01 + 39.8 * decay).sqrt() - 0.1) / 19.9
    assert float(t.min()) > 1e-5 - 1e-12
    assert float(t.max()) <= 1 + 1e-12
    assert_mean(t, 0.5)
    assert_mean(t.square(), 1 / 3)
    assert float(ve.min()) >= math.log(0.02) - 1e-12
    assert float(ve.max()) <= math.log(100) + 1e-12
    assert_mean(ve, (math.log(0.02) + math.log(100)) / 2)
    assert_mean((ve - math.log(0.02)).square(), math.log(5000) ** 2 / 3)


def test_training_sigmas_may_be_drawn_around_another_mean_and_are_validated_as_ever() -> None:
    edm2 = SigmaProcess(p_mean=-0.4, p_std=1.0)
    drawn = draws(edm2).log()
    assert_mean(drawn, -0.4)
    assert_mean((drawn + 0.4).square(), 1.0)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    validated, plain = (
        process.validation_times().draw((100,), generator)
        for process, generator in zip((edm2, SigmaProcess()), generators, strict=True)
    )
    assert torch.equal(validated, plain)
    assert edm2.sampling_times(18) == SigmaProcess().sampling_times(18)


@pytest.mark.parametrize(
    ("family", "multiplier", "share", "error"),
    [
        ("edm", 1, 0.998, 5e-4),
        ("edm", 2, 0.995, 1e-3),
        ("vp", 1, 0.76, 0.01),
        ("vp", 2, 0.71, 0.01),
        ("ve", 1, 0.75, 0.01),
    ],
)
def test_momentum_leaves_most_training_inputs_as_they_are(
    family: str, multiplier: float, share: float, error: float
) -> None:
    process = SigmaProcess(family, "momentum", multiplier)
    c_in = process.c_in(draws(process))
    assert float(((c_in - 1).abs() < 0.01).double().mean()) == pytest.approx(share, abs=error)


@pytest.mark.parametrize(
    ("family", "multiplier", "peak", "where"),
    [("edm", 1, 18.4, 25), ("edm", 2, 12.9, 17.7), ("vp", 1, 34.9, None), ("vp", 2, 24.5, None), ("ve", 1, 23.0, 31.4)],
)
def test_peak_of_the_input_under_momentum(family: str, multiplier: float, peak: float, where: float | None) -> None:
    sigma = torch.linspace(0.02, 80, 40_000, dtype=torch.float64)
    c_in = SigmaProcess(family, "momentum", multiplier).c_in(sigma)
    size = c_in * (sigma.square() + 0.25).sqrt()
    assert float(size.max()) == pytest.approx(peak, abs=0.06)
    if where is not None:
        assert float(sigma[size.argmax()]) == pytest.approx(where, abs=0.3)


def test_size_of_the_input_under_momentum() -> None:
    # s is practically 1 up to the 99th percentile of EDM's sigmas: the sizes there are those of the raw state.
    quantiles = f64(0.5, 0.99)
    for family, multiplier, median, high in [("edm", 1, 0.584, 4.9), ("vp", 1, 2.9, None), ("vp", 2, 2.4, None)]:
        process = SigmaProcess(family, "momentum", multiplier)
        sigma = draws(process)
        size = process.c_in(sigma) * (sigma.square() + 0.25).sqrt()
        ours = size.quantile(quantiles).tolist()
        assert ours[0] == pytest.approx(median, abs=0.06 if family == "vp" else 0.003)
        if high is not None:
            assert ours[1] == pytest.approx(high, abs=0.06)


def test_sampling_grids() -> None:
    edm_13 = [80, 49.979339, 30.183258, 17.527832, 9.723201, 5.109162, 2.515219, 1.143133, 0.469979]
    edm_13 += [0.169753, 0.051532, 0.012238, 0.002]
    edm_18 = [80, 57.585985, 40.785574, 28.374585, 19.352453, 12.910082, 8.400935, 5.315195, 3.256822]
    edm_18 += [1.923340, 1.088171, 0.585348, 0.296442, 0.139516, 0.059947, 0.022935, 0.007528, 0.002]
    for expected in (edm_13, edm_18):
        grid = SigmaProcess().grid(len(expected))
        assert list(grid.timesteps) == pytest.approx(expected, abs=6e-7)
        assert grid.next_timesteps == (*grid.timesteps[1:], -1.0)
        assert SigmaProcess("vp").grid(len(expected)) == grid
    ve = SigmaProcess("ve").grid(13).timesteps
    assert [ve[0], ve[-1]] == pytest.approx([80.0, 0.02])
    assert SigmaProcess().grid(1).timesteps == pytest.approx((80.0,))
    assert FlowProcess().grid(4).timesteps == (1.0, 0.75, 0.5, 0.25)
    assert FlowProcess().grid(4).next_timesteps == (0.75, 0.5, 0.25, -1.0)
    for process in (SigmaProcess(), FlowProcess()):
        with pytest.raises(ValueError, match=r"steps=0"):
            process.grid(0)
        with pytest.raises(ValueError, match=r"spacing=leading has no effect"):
            process.grid(4, "leading")
        assert process.grid(4, "trailing") == process.grid(4)


@pytest.mark.parametrize(
    "process",
    [SigmaProcess("edm"), SigmaProcess("vp", "momentum", 2.0), SigmaProcess("ve"), FlowProcess()],
    ids=["edm", "vp", "ve", "flow"],
)
def test_levels_are_the_coefficients_of_a_batch(process: SigmaProcess | FlowProcess) -> None:
    times = f64(0.05, 0.4, 0.9)
    batch = process.coefficients(times)
    assert batch.time.dtype == torch.float32
    for i, time in enumerate(times.tolist()):
        level = process.level(time)
        assert [level.alpha, level.sigma, level.input_scale] == pytest.approx(
            [float(batch.alpha[i]), float(batch.sigma[i]), float(batch.input_scale[i])], rel=1e-14
        )
        assert isinstance(level.time, float)
        assert level.time == pytest.approx(float(batch.time[i]), rel=1e-6)
        assert 2 * level.half_log_snr == pytest.approx(float(process.log_snr_at(times[i])), rel=1e-12)
    assert process.level(-1.0) == CLEAN
    assert process.level(0.0) == CLEAN
    assert process.to("cpu") == process


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 2, 4, 4)])
def test_diffuse(shape: tuple[int, ...]) -> None:
    x0, noise = torch.randn(shape), torch.randn(shape)
    for i, t in enumerate([0.1, 0.5, 1.0]):
        sigma_state = SigmaProcess().diffuse(x0, noise, f64(0.1, 0.5, 1.0))
        flow_state = FlowProcess().diffuse(x0, noise, f64(0.1, 0.5, 1.0))
        assert sigma_state.dtype == flow_state.dtype == torch.float32
        torch.testing.assert_close(sigma_state[i], x0[i] + t * noise[i])
        torch.testing.assert_close(flow_state[i], (1 - t) * x0[i] + t * noise[i])


def test_flow_times() -> None:
    uniform = draws(FlowProcess())
    assert 0 < float(uniform.min()) < float(uniform.max()) <= 1
    assert_mean(uniform, 0.5)
    assert_mean(uniform.square(), 1 / 3)
    logit = draws(FlowProcess("logit_normal")).logit()
    assert_mean(logit, 0.0)
    assert_mean(logit.square(), 1.0)
    level = FlowProcess().level(0.25)
    assert (level.alpha, level.sigma, level.input_scale, level.time) == (0.75, 0.25, 1.0, 250.0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: SigmaProcess("vq"), r"family 'vq'"),
        (lambda: SigmaProcess("edm", "momentun"), r"input_scale .*did you mean 'momentum'"),
        (lambda: SigmaProcess("edm", "momentum", -1.0), r"multiplier=-1\.0"),
        (lambda: SigmaProcess(p_std=0.0), r"p_std=0\.0 must be positive and finite"),
        (lambda: SigmaProcess(p_mean=math.nan), r"p_mean=nan must be finite"),
        (lambda: FlowProcess("logitnormal"), r"distribution .*did you mean 'logit_normal'"),
    ],
)
def test_errors(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_scaling_data_and_sigma_data_alike_leaves_the_network_the_same_task() -> None:
    """The deviation of the data is the unit of everything: c_in x, F and its loss do not change with it."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    sigma, unit = f64(0.01, 0.3, 1.0, 7.0, 60.0), 2.6
    one, other = SigmaProcess(), SigmaProcess(sigma_data=unit * 0.5)
    plain = make_noised(one, x0, noise, sigma, "edm")
    scaled = make_noised(other, unit * x0, noise, unit * sigma, "edm")
    torch.testing.assert_close(scaled.target, plain.target)
    torch.testing.assert_close(scaled.model_input, plain.model_input)
    for process, times in ((one, sigma), (other, unit * sigma)):
        torch.testing.assert_close(process.loss_weight(times, "edm"), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(unit**2 * other.sample_weight(unit * sigma), one.sample_weight(sigma))
    level = other.level(unit * 0.3)
    found = predicted_sample(scaled.target[1:2], scaled.x_t[1:2], level, "edm")
    torch.testing.assert_close(found, unit * x0[1:2])
    a, b = sample_coefficients(level, "edm")
    torch.testing.assert_close(a * scaled.x_t[1:2] + b * scaled.target[1:2], unit * x0[1:2])


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_impossible_deviations_of_the_data(value: float) -> None:
    with pytest.raises(ValueError, match=f"sigma_data={value} must be positive and finite"):
        SigmaProcess(sigma_data=value)
