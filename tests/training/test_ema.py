from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ema_pytorch.post_hoc_ema import KarrasEMA
from torch import nn

from policy_accel.diffusion.repetition import Repetition
from policy_accel.errors import UserError
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.ema import EMA, EMAConfig, profile_exponent
from policy_accel.training.weights import Weights


def test_decay_warms_up_as_in_the_reference() -> None:
    """The reference: n = max(0, updates - update_after - 1), 0 for n = 0, else 1 - (1 + n) ** -0.75, at most 0.9999."""
    ema = EMA(Weights(nn.Linear(1, 1)), EMAConfig())
    decays = []
    for updates in (0, 1, 2, 3, 10, 1000, 10**6):
        ema.updates = updates
        decays.append(ema.decay())
    expected = [0.0, 0.0, 1 - 2**-0.75, 1 - 3**-0.75, 1 - 10**-0.75, 1 - 1000**-0.75, 0.9999]
    assert decays == pytest.approx(expected)


def test_settings_reach_the_decay() -> None:
    def decay(updates: int, **settings: float) -> float:
        ema = EMA(Weights(nn.Linear(1, 1)), EMAConfig(**settings))  # type: ignore[arg-type]
        ema.updates = updates
        return ema.decay()

    assert decay(11, power=0.5) == pytest.approx(1 - 11**-0.5)
    assert decay(11, inv_gamma=2.0) == pytest.approx(1 - 6**-0.75)
    assert decay(11, update_after_step=5) == pytest.approx(1 - 6**-0.75)
    assert decay(2, min_decay=0.8) == 0.8
    assert decay(1000, max_decay=0.9) == 0.9


def test_update_equals_a_loop_over_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = EMA(Weights(model), EMAConfig())
    expected = copy.deepcopy(model)
    for update in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            model(torch.randn(5, 3))
        n = max(0, update - 1)
        decay = 0.0 if n == 0 else 1 - (1 + n) ** -0.75
        for slow, fast in zip(expected.parameters(), model.parameters(), strict=True):
            slow.data.mul_(decay).add_(fast.data, alpha=1 - decay)
        ema.update()
    for slow, ours in zip(expected.parameters(), ema.model.parameters(), strict=True):
        torch.testing.assert_close(ours, slow.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean)  # type: ignore[index, union-attr]
    assert ema.updates == 6


def test_the_copy_is_in_eval_mode_and_needs_no_gradient() -> None:
    ema = EMA(Weights(nn.Sequential(nn.Dropout(), nn.Linear(1, 1))), EMAConfig())
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def shares_of_updates(config: EMAConfig, updates: int, batch: int, name: str = "ema") -> np.ndarray:
    """What the model after each update counts in an average, [updates]: its only weight is a unit vector that names
    the update.
    """
    model = nn.Linear(1, updates, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(Weights(model), config)
    units = torch.eye(updates)
    for update in range(updates):
        with torch.no_grad():
            model.weight.copy_(units[update][:, None])
        ema.update(batch)
    return ema.models()[name].weight.detach().double().numpy()[:, 0]  # type: ignore[union-attr, operator]


def test_half_life_is_counted_in_samples() -> None:
    recent = shares_of_updates(EMAConfig(half_life=40.0, half_life_ramp=None), updates=60, batch=8)[::-1]
    assert recent[:5].sum() == pytest.approx(0.5, abs=1e-6)  # 5 batches of 8 are 40 samples
    assert recent[5:10].sum() == pytest.approx(0.25, abs=1e-6)


def test_half_life_is_ramped_as_published() -> None:
    """Karras et al. 2022: half-life = min(half_life, ramp * samples so far), the samples before this batch."""
    ema = EMA(Weights(nn.Linear(1, 1)), EMAConfig(half_life=500.0, half_life_ramp=0.1))
    for update in range(100):
        half_life = min(500.0, 0.1 * 64 * update)
        assert ema.decay(64) == pytest.approx(0.0 if update == 0 else 0.5 ** (64 / half_life))
        ema.update(64)
    assert ema.samples == 6400
    assert ema.decay(64) == pytest.approx(0.5 ** (64 / 500))


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_profile_has_the_length_it_is_named_after(length: float) -> None:
    """The weights of the updates are the profile t ** gamma, and their relative standard deviation is the length."""
    updates = 1000
    shares = shares_of_updates(EMAConfig(lengths=[length]), updates, 1, f"ema_{length}")
    times = (np.arange(updates) + 0.5) / updates
    assert shares.sum() == pytest.approx(1.0, abs=1e-5)
    deviation = np.sqrt(shares @ times**2 - (shares @ times) ** 2)
    assert deviation == pytest.approx(length, rel=0.01)
    gamma = profile_exponent(length)
    expected = np.diff((np.arange(updates + 1) / updates) ** (gamma + 1))
    assert np.abs(shares - expected).max() < 0.02 * expected.max()


def test_profile_equals_ema_pytorch() -> None:
    """An implementation of the same paper by others; it counts the weights it starts with as an update of their own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours = EMA(Weights(model), EMAConfig(lengths=[0.05, 0.2]))
    theirs = [KarrasEMA(model, sigma_rel=length, update_every=1) for length in (0.05, 0.2)]
    for update in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        for _ in range(2 if update == 0 else 1):
            ours.update()
        for other in theirs:
            other.update()
    for name, other in zip(("ema_0.05", "ema_0.2"), theirs, strict=True):
        average = ours.models()[name]
        assert not average.training
        for a, b in zip(average.parameters(), other.ema_model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
            assert not a.requires_grad


@pytest.mark.parametrize(("coupling", "samples"), [("fresh", 24), ("independent", 8)])
def test_a_run_averages_over_clean_samples_however_many_rows_they_make(
    coupling: str,
    samples: int,
    toy_task: Any,
    config: TrainingConfig,
    run: Callable[..., Trained],
    tmp_path: Path,
) -> None:
    """Three times a sample: an update is 24 rows, of 24 samples (fresh) or of 8 noised three times each."""
    config.ema.half_life, config.ema.half_life_ramp = 30.0, 0.5
    task = toy_task()
    task.objective = replace(task.objective, repetition=Repetition(times_per_sample=3, coupling=coupling))
    average = {name: value.detach().clone() for name, value in task.model.named_parameters()}

    def follow(update: int) -> None:
        half_life = min(30.0, 0.5 * samples * (update - 1))
        decay = 0.5 ** (samples / half_life) if half_life else 0.0
        for name, value in task.model.named_parameters():
            average[name].mul_(decay).add_(value.detach(), alpha=1 - decay)

    run(task, config, after_update=follow)
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last")
    assert saved.state["ema_samples"] == 12 * samples
    for name, value in average.items():
        torch.testing.assert_close(saved.tensors["ema"][name], value, rtol=1e-5, atol=1e-6)


def test_averages_by_name() -> None:
    ema = EMA(Weights(nn.Linear(1, 1)), EMAConfig(lengths=[0.05, 0.1]))
    assert list(ema.models()) == ["ema", "ema_0.05", "ema_0.1"]
    assert ema.models()["ema"] is ema.model
    assert list(EMA(Weights(nn.Linear(1, 1)), EMAConfig()).models()) == ["ema"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"min_decay": 0.9, "max_decay": 0.5}, r"training\.ema needs 0 <= min_decay=0\.9 <= max_decay=0\.5"),
        ({"inv_gamma": 0.0}, r"training\.ema\.inv_gamma=0\.0 must be positive"),
        ({"power": -1.0}, r"power=-1\.0 not negative"),
        ({"half_life": 0.0}, r"training\.ema\.half_life=0\.0 must be positive and finite, or null"),
        ({"half_life": float("nan")}, r"training\.ema\.half_life=nan must be positive"),
        ({"half_life": 9.0, "half_life_ramp": -1.0}, r"half_life_ramp=-1\.0 must be positive"),
        ({"half_life_ramp": 0.1}, r"half_life_ramp=0\.1 has no effect with training\.ema\.half_life=null"),
        (
            {"half_life": 9.0, "power": 0.5},
            r"training\.ema\.power=0\.5 has no effect with training\.ema\.half_life=9\.0",
        ),
        ({"lengths": [0.05, 0.3]}, r"training\.ema\.lengths=0\.3 is not the relative standard deviation of a profile"),
        ({"lengths": [0.0]}, r"training\.ema\.lengths=0\.0"),
        ({"lengths": [0.05, 0.05]}, r"names a length twice"),
    ],
)
def test_errors(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        EMA(Weights(nn.Linear(1, 1)), EMAConfig(**settings))
