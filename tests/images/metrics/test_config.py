from __future__ import annotations

from typing import Any

import pytest

from policy_accel.errors import UserError
from policy_accel.images.metrics import MetricsConfig


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("neighbours", 0, "at least 1"),
        ("projections", 0, "at least 1"),
        ("batch_size", -1, "at least 1"),
        ("neighbour_samples", 5, "more than evaluation.metrics.neighbours=5"),
        ("sliced_samples", 1, "at least 2"),
        ("copy_quantile", 1.0, "between 0 and 1"),
        ("copy_quantile", 0.0, "between 0 and 1"),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"^evaluation\.metrics\.{field}={value}: .*{says}"):
        MetricsConfig(**{field: value}).check()


def test_the_defaults_pass() -> None:
    MetricsConfig().check()
