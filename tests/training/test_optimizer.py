from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn

from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.training.muon import Muon
from policy_accel.training.optimizer import MuonConfig, OptimizerConfig, build_optimizer, lr_factor


class Model(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def no_weight_decay(self) -> set[str]:
        return {"layer.bias"}


def test_cosine_equals_diffusers() -> None:
    config = OptimizerConfig(warmup_steps=5)
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(reference, num_warmup_steps=5, num_training_steps=40)
    for step in range(40):
        assert lr_factor(config, step, 40) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        reference.step()
        schedule.step()


def test_constant_after_warmup() -> None:
    config = OptimizerConfig(warmup_steps=4, schedule="constant")
    assert [lr_factor(config, step, 10) for step in (0, 2, 4, 9)] == [0.0, 0.5, 1.0, 1.0]


def test_a_line_to_zero_after_warmup() -> None:
    config = OptimizerConfig(warmup_steps=4, schedule="linear")
    assert [lr_factor(config, step, 12) for step in (0, 2, 4, 6, 10, 12)] == [0.0, 0.5, 1.0, 0.75, 0.25, 0.0]


def test_stable_and_then_a_line_to_zero() -> None:
    config = OptimizerConfig(warmup_steps=4, schedule="warmup_stable_decay", decay_share=0.2)
    got = [lr_factor(config, step, 20) for step in (0, 2, 4, 15, 16, 17, 18, 20)]
    assert got == [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.0]


def test_a_decay_as_long_as_the_run_begins_with_the_end_of_the_warmup() -> None:
    config = OptimizerConfig(warmup_steps=4, schedule="warmup_stable_decay", decay_share=1.0)
    line = OptimizerConfig(warmup_steps=4, schedule="linear")
    assert [lr_factor(config, step, 12) for step in range(13)] == [lr_factor(line, step, 12) for step in range(13)]


def test_constant_and_then_an_inverse_root() -> None:
    config = OptimizerConfig(warmup_steps=2, schedule="inverse_sqrt", reference_steps=4)
    assert [lr_factor(config, step, 100) for step in (0, 1, 2, 4, 16, 64)] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.25]


def test_settings_reach_adamw() -> None:
    config = OptimizerConfig(betas=[0.5, 0.7], eps=1e-5, weight_decay=0.25)
    optimizer = build_optimizer(config, Model())
    assert (optimizer.betas, optimizer.eps, optimizer.groups[0].weight_decay) == ((0.5, 0.7), 1e-5, 0.25)


def test_exempt_parameters_are_not_decayed() -> None:
    model = Model()
    decayed, exempt = build_optimizer(OptimizerConfig(weight_decay=0.1), model).groups
    assert (decayed.weight_decay, exempt.weight_decay) == (0.1, 0.0)
    assert decayed.parameters == [model.layer.weight]
    assert exempt.parameters == [model.layer.bias]


class TwoRates(Model):
    def __init__(self) -> None:
        super().__init__()
        self.slow, self.last = nn.Linear(2, 4), nn.Linear(4, 2)

    def lr_factors(self) -> dict[str, float]:
        return {"slow.weight": 0.1, "slow.bias": 0.1}

    def no_weight_decay(self) -> set[str]:
        return {"slow.bias", "layer.bias"}


@pytest.mark.parametrize("muon", [False, True])
def test_parameters_with_rates_of_their_own_are_groups_of_their_own(muon: bool) -> None:
    model = TwoRates()
    config = (MuonConfig if muon else OptimizerConfig)(weight_decay=0.3)
    optimizer = build_optimizer(config, model)
    groups = [*optimizer.rest.groups, *optimizer.matrices] if isinstance(optimizer, Muon) else optimizer.groups
    found = {(group.lr_factor, group.weight_decay): list(group.parameters) for group in groups}
    assert found == {
        (1.0, 0.3): [model.layer.weight, model.last.weight, model.last.bias],
        (1.0, 0.0): [model.layer.bias],
        (0.1, 0.3): [model.slow.weight],
        (0.1, 0.0): [model.slow.bias],
    }
    assert [group.rate(0.5) for group in groups] == [0.5 * group.lr_factor for group in groups]
    if isinstance(optimizer, Muon):
        assert optimizer.moved == [model.slow.weight]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (OptimizerConfig(lr=0.0), r"optimizer\.lr=0\.0 must be positive"),
        (OptimizerConfig(betas=[0.9]), r"optimizer\.betas=\[0\.9\]"),
        (OptimizerConfig(betas=[0.9, 1.0]), r"two numbers in \[0, 1\)"),
        (OptimizerConfig(eps=-1e-8), r"optimizer\.eps=-1e-08 must not be negative"),
        (OptimizerConfig(weight_decay=-0.1), r"optimizer\.weight_decay=-0\.1 must not be negative"),
        (OptimizerConfig(schedule="cosin"), r"did you mean 'cosine'"),
        (OptimizerConfig(decay_share=0.5), r"decay_share=0\.5 has no effect with .*schedule=cosine; leave it at 0\.3"),
        (OptimizerConfig(schedule="warmup_stable_decay", decay_share=0.0), r"decay_share=0\.0 must be above 0 and at"),
        (OptimizerConfig(reference_steps=5), r"reference_steps=5 has no effect with .*schedule=cosine"),
        (OptimizerConfig(schedule="inverse_sqrt", reference_steps=0), r"reference_steps=0 must be at least 1"),
        (OptimizerConfig(schedule="warmup_stable_decay", decay_share=1.5), r"decay_share=1\.5 must be above 0 and at"),
        (OptimizerConfig(clip_grad_norm=-1.0), r"clip_grad_norm=-1\.0 must be positive"),
    ],
)
def test_errors(config: OptimizerConfig, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_optimizer(config, Model())
