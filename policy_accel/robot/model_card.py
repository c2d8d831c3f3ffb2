"""The model card of a policy: a README.md as the Hugging Face hub reads it, written from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy_accel.parsing import is_number
from policy_accel.sharing.card import card, code, plain, table, training


def model_card(about: Mapping[str, Any], name: str, observation: str) -> str:
    """The card.

    Args:
        about: what `about_of` says of the policy, with its provenance.
        name: by which it is loaded: a folder, or OWNER/NAME on the hub.
        observation: what `act` takes, in words.
    """
    known = about.get("provenance") or {}
    lines = [
        f"# {plain(name)}",
        "",
        f"A diffusion policy for the task {code(about['task'])}, trained with policy_accel. It sees the newest "
        f"{about['n_obs_steps']} observations, plans {about['horizon']} actions and executes {about['n_action_steps']} "
        f"of them; {about['sampler']} takes {about['network_evaluations']} evaluations of its network for a plan.",
        "",
        "## Use",
        "",
        "```python",
        "from policy_accel import Policy",
        f"policy = Policy.from_pretrained({name!r})",
        "action = policy.act(observation)",
        "```",
        "",
        f"`observation` is {plain(observation)}. Actions are in the units of the data. `policy.reset(seed)` begins an "
        "episode.",
        "",
        "## Training",
        "",
        *table(training(known)),
        "",
        "## Score",
        "",
        *_score(known.get("evaluation") or {}),
        "",
    ]
    return card(_head(about, known, name), lines)


def _head(about: Mapping[str, Any], known: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the hub reads."""
    head: dict[str, Any] = {
        "library_name": "policy_accel",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "diffusion-policy", str(about["task"])],
    }
    scored = known.get("evaluation") or {}
    if is_number(scored.get("score")):
        metrics = [{"type": "score", "name": "mean score", "value": round(float(scored["score"]), 4)}]
        if is_number(scored.get("success_rate")):
            metrics.append(
                {"type": "success", "name": "success rate", "value": round(float(scored["success_rate"]), 4)}
            )
        task = {"type": "robotics", "name": str(about["task"])}
        data = str(known.get("data", "unknown"))
        results = [{"task": task, "dataset": {"name": data, "type": data}, "metrics": metrics}]
        head["model-index"] = [{"name": name, "results": results}]
    return head


def _score(scored: Mapping[str, Any]) -> list[str]:
    if not is_number(scored.get("score")):
        return ["This policy was not scored in a simulator."]
    rows = {"Score": f"{_measured(scored, 'score')}, by {plain(scored.get('score_from', 'the environment'))}"}
    if is_number(scored.get("success_rate")):
        rows["Success"] = _measured(scored, "success_rate", "success_interval")
    rows["Episodes"] = f"{scored.get('episodes')}, from seed {scored.get('start_seed')}"
    fresh = scored.get("fresh")
    if isinstance(fresh, Mapping) and is_number(fresh.get("score")):
        rows["On fresh seeds"] = f"{_measured(fresh, 'score')}, {fresh.get('episodes')} from {fresh.get('start_seed')}"
    rows["Sampled by"] = f"{plain(scored.get('sampler'))}, {scored.get('network_evaluations')} evaluations a plan"
    if is_number(scored.get("delay_ms")):
        rows["Delay"] = f"{scored['delay_ms']:g} ms until a plan is there"
    return table(rows)


def _measured(values: Mapping[str, Any], name: str, interval: str | None = None) -> str:
    """A number with its interval."""
    bounds = values.get(interval or f"{name}_interval")
    text = f"{values[name]:.3f}"
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return text
    confidence = values.get("confidence")
    share = f"{confidence:.0%} " if is_number(confidence) and confidence is not None else ""
    return f"{text} ({share}interval {bounds[0]:.3f} to {bounds[1]:.3f})"
