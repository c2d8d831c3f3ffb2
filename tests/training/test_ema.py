from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from policy_accel.errors import UserError
from policy_accel.training.ema import EMA, EMAConfig


def test_decay_warms_up_as_in_the_reference() -> None:
    """The reference: n = max(0, updates - update_after - 1), 0 for n = 0, else 1 - (1 + n) ** -0.75, at most 0.9999."""
    ema = EMA(nn.Linear(1, 1), EMAConfig())
    decays = []
    for updates in (0, 1, 2, 3, 10, 1000, 10**6):
        ema.updates = updates
        decays.append(ema.decay())
    expected = [0.0, 0.0, 1 - 2**-0.75, 1 - 3**-0.75, 1 - 10**-0.75, 1 - 1000**-0.75, 0.9999]
    assert decays == pytest.approx(expected)


def test_settings_reach_the_decay() -> None:
    def decay(updates: int, **settings: float) -> float:
        ema = EMA(nn.Linear(1, 1), EMAConfig(**settings))  # type: ignore[arg-type]
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
    ema = EMA(model, EMAConfig())
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
    ema = EMA(nn.Sequential(nn.Dropout(), nn.Linear(1, 1)), EMAConfig())
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


@pytest.mark.parametrize("settings", [{"min_decay": 0.9, "max_decay": 0.5}, {"inv_gamma": 0.0}, {"power": -1.0}])
def test_errors(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"training\.ema"):
        EMA(nn.Linear(1, 1), EMAConfig(**settings))  # type: ignore[arg-type]
