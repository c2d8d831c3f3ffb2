"""Counted work against sums done by hand."""

from __future__ import annotations

from policy_accel.benchmark.counting import count_update
from policy_accel.policy.track import ROBOT

CLIPPED = ["training.optimizer.clip_grad_norm=1.0", "training.ema.lengths=[0.1]"]


def counted(overrides):
    config = ROBOT.config(overrides)
    return count_update(ROBOT.build(config), config.training, config.seed)


def test_the_reference_net_costs_what_was_worked_out_for_it(counted_recipe):
    """65.78 M weights: 7 numbers each for AdamW, 3 for the average, 1 gradient."""
    found = counted_recipe("diffusion_policy")
    assert found.parameters == 65_783_298
    assert found.rows == 256
    assert round(found.flops / 1e12, 3) == 0.453
    assert round(found.adamw_bytes / 1e9, 2) == 1.84
    assert round(found.averages_bytes / 1e9, 2) == 0.79
    assert found.gradient_bytes == 4 * 65_783_298
    assert found.cast_bytes == 6 * 65_783_298
    assert found.state_bytes == found.adamw_bytes + found.averages_bytes + found.gradient_bytes + found.cast_bytes


def test_a_small_net_by_hand(tiny):
    """The backward pass makes two products for each of the forward pass, but for inputs that need no gradient."""
    found = counted(tiny)
    config = ROBOT.config(tiny)
    model = ROBOT.build(config).model
    layers = [module for module in model.modules() if hasattr(module, "in_features")]
    forward = sum(2 * 8 * layer.in_features * layer.out_features for layer in layers)
    assert 2 * forward < found.flops < 3 * forward
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.gradient_bytes == 4 * found.parameters
    assert found.cast_bytes == 0
    assert 4 * 8 * (16 + 16) < found.activation_bytes < 100 * 4 * 8 * 32


def test_a_second_average_is_moved_too_and_clipping_is_left_out(tiny):
    one, two = counted(tiny), counted([*tiny, *CLIPPED])
    assert two.averages_bytes == 2 * one.averages_bytes
    assert two.adamw_bytes == one.adamw_bytes
    assert two.flops == one.flops


def test_several_times_of_a_sample_are_as_many_rows(tiny):
    one, several = counted(tiny), counted([*tiny, "method=kl"])
    assert several.rows == 4 * one.rows
    assert several.adamw_bytes == one.adamw_bytes


def test_muon_is_counted_apart(tiny):
    """Three hidden matrices of 16 x 16, each 5 times 6 16^3; weights and momentum read and written, gradients read."""
    plain, found = counted(tiny), counted([*tiny, "training/optimizer=muon"])
    config = ROBOT.config([*tiny, "training/optimizer=muon"])
    model = ROBOT.build(config).model
    shapes = [sorted(p.shape) for name, p in model.named_parameters() if name in model.matrices()]
    assert found.muon_flops == found.flops - plain.flops > 0
    weights = sum(n * m for n, m in shapes)
    assert found.muon_bytes == 5 * 4 * weights
    assert found.state_bytes - plain.state_bytes == 20 * weights - (plain.adamw_bytes - found.adamw_bytes)
    assert plain.adamw_bytes - found.adamw_bytes >= 28 * weights
    assert (plain.muon_flops, plain.muon_bytes) == (0, 0)
