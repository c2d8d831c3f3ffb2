from __future__ import annotations

import pytest
import torch

from policy_accel.policy.foreign.names import reordered, resnet_trunk, transformer_settings


def test_a_condition_in_another_order() -> None:
    """What the weights make of it is the same; a U-Net sees all observations behind its time, a transformer each."""
    order, steps = [2, 0, 1], 2
    state = {"down.0.0.film.1.weight": torch.rand(4, 2 + 6), "observation.weight": torch.rand(4, 3)}
    changed = reordered(state, order, steps)
    theirs, time = torch.rand(steps, 3), torch.rand(2)
    ours = theirs[:, order]
    seen, expected = torch.cat([time, ours.flatten()]), torch.cat([time, theirs.flatten()])
    torch.testing.assert_close(changed["down.0.0.film.1.weight"] @ seen, state["down.0.0.film.1.weight"] @ expected)
    torch.testing.assert_close(ours @ changed["observation.weight"].T, theirs @ state["observation.weight"].T)


def test_networks_that_ours_do_not_have() -> None:
    with pytest.raises(ValueError, match="a larger network than ResNet-18"):
        resnet_trunk({"4.2.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"has fc\.weight, which ResNet-18 does not have"):
        resnet_trunk({"fc.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="encodes the condition by attention"):
        transformer_settings({}, 2, causal=True)
