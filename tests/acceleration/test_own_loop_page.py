"""The examples of the methods' page run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import policy_accel


def examples() -> list[str]:
    page = (Path(policy_accel.__file__).parents[1] / "docs" / "how_to" / "own_loop.md").read_text()
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def test_there_are_three() -> None:
    assert len(examples()) == 3


@pytest.mark.parametrize("number", [0, 1, 2], ids=["plain", "paths", "diffusers"])
def test_an_example_runs_and_trains(number: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict[str, object] = {}
        exec(compile(examples()[number], f"example {number}", "exec"), names)
    loss, optimizer = names["loss"], names["optimizer"]
    assert isinstance(loss, torch.Tensor)
    assert bool(loss.isfinite())
    assert isinstance(optimizer, torch.optim.AdamW)
    state = next(iter(optimizer.state.values()))
    assert int(state["step"]) == names["steps"]
    if number != 1:
        assert optimizer.param_groups[0]["betas"][0] < (0.95 if number == 0 else 0.9)
    for name in ("path_noise", "sample"):
        if name in names:
            assert bool(names[name].isfinite().all())  # type: ignore[attr-defined]
