"""What a policy's card says of where it comes from."""

from __future__ import annotations

from typing import Any

from policy_accel.policy.run import LoadedRun
from policy_accel.sharing.provenance import provenance_of

SCORED = (
    "score",
    "score_interval",
    "confidence",
    "score_from",
    "success_rate",
    "success_interval",
    "start_seed",
    "sampler",
    "network_evaluations",
)
"""What is kept of an evaluation."""


def policy_provenance(run: LoadedRun) -> dict[str, Any]:
    """See `provenance_of`."""
    return provenance_of(run, _kept)


def _kept(scored: dict[str, Any]) -> dict[str, Any]:
    """What a card says of an evaluation; scores on seeds that chose the checkpoint are told apart from fresh ones."""
    found = {name: scored[name] for name in SCORED if name in scored}
    episodes = scored.get("episodes")
    found["episodes"] = len(episodes) if isinstance(episodes, list) else episodes
    bias = scored.get("selection_bias")
    if isinstance(bias, dict) and isinstance(bias.get("fresh"), dict):
        found["fresh"] = bias["fresh"]
    control = scored.get("control")
    if isinstance(control, dict):
        found["delay_ms"] = control.get("delay_ms")
    return found
