"""Learning curves of runs whose picture no test looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def curves_drawn_once() -> Iterator[None]:
    """The command `train` draws the first curve; later runs get a copy, since drawing takes 0.4 s."""
    from policy_accel.training.plot import plot_learning_curve  # loads torch

    drawn: list[bytes] = []

    def draw(run_dir: Path) -> Path:
        if not drawn:
            drawn.append(plot_learning_curve(run_dir).read_bytes())
        path = run_dir / "learning_curve.png"
        path.write_bytes(drawn[0])
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policy_accel.commands.train.plot_learning_curve", draw)
        yield
