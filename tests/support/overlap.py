"""Whether a run is scored beside its training."""

from __future__ import annotations

from typing import Any
from unittest import mock

from policy_accel.track import track


def scored_beside(config: Any) -> bool:
    with mock.patch("policy_accel.track.train") as train:
        track(config.track).train(config)
    return train.call_args.kwargs["scorer"] is not None
