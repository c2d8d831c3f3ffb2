from __future__ import annotations

import torch
from torch import nn

from policy_accel.training.flat import ALIGNMENT, flatten_parameters


def test_parameters_stay_what_they_are_and_lie_in_one_buffer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last), nn.Linear(7, 2))
    before = list(model.parameters())
    values = [p.detach().clone() for p in before]
    strides = [p.stride() for p in before]
    buffer = flatten_parameters(model)
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    for parameter, value, stride in zip(before, values, strides, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.stride() == stride
        assert parameter.storage_offset() % ALIGNMENT == 0
        assert parameter.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()
    with torch.no_grad():
        buffer.mul_(2.0)
    assert all(torch.equal(p, 2.0 * value) for p, value in zip(before, values, strict=True))
