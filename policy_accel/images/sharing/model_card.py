"""The model card of an image model, written from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy_accel.parsing import is_number
from policy_accel.sharing.card import card, code, plain, table, training


def model_card(about: Mapping[str, Any], name: str) -> str:
    """The card.

    Args:
        about: what `save_pretrained` says of the model, with its provenance.
        name: by which it is loaded: a folder, or OWNER/NAME on the hub.
    """
    known = about.get("provenance") or {}
    channels, height, width = about["shape"]
    classes = about["classes"]
    told = f", of one of {len(classes)} classes" if classes else ""
    head = {
        "library_name": "policy_accel",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusion", "image-generation", str(about["task"])],
    }
    lines = [
        f"# {plain(name)}",
        "",
        f"A diffusion model of images of {height} x {width} in {channels} channels{told}, for the task "
        f"{code(about['task'])}, trained with policy_accel. {plain(about['sampler'])} takes "
        f"{about['network_evaluations']} evaluations of its network for an image.",
        "",
        "## Use",
        "",
        "```python",
        "from policy_accel import ImageModel",
        f"model = ImageModel.from_pretrained({name!r})",
        "images = model.generate(16)",
        "```",
        "",
        f"`policy-accel sample {name}` draws images to files, and `policy-accel train init_from={name}` fine-tunes it.",
        "",
        "## Training",
        "",
        *table(training(known)),
        "",
        "## Measures",
        "",
        *_measures(known.get("evaluation") or {}),
        "",
    ]
    return card(head, lines)


def _measures(scored: Mapping[str, Any]) -> list[str]:
    measures = scored.get("measures")
    if not isinstance(measures, Mapping) or not measures:
        return ["Its images were not measured."]
    rows = {}
    for name, found in measures.items():
        value, floor = (found.get("value"), found.get("floor")) if isinstance(found, Mapping) else (found, None)
        if is_number(value):
            beside = f" (real held-out images: {floor:.4g})" if is_number(floor) else ""
            rows[plain(name)] = f"{value:.4g}{beside}"
    rows["Images"] = f"{scored.get('images')}, seed {scored.get('seed')}"
    rows["Sampled by"] = f"{plain(scored.get('sampler'))}, {scored.get('network_evaluations')} evaluations an image"
    return table(rows)
