"""Every field of a network's configuration changes the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.config_fields import count, model_fields

from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import build_policy

Build = Callable[..., RobotConfig]
MODEL_FIELDS: dict[str, tuple[str, Callable[[torch.nn.Module], Any]]] = {
    "unet.down_dims": ("[8,24]", count),
    "unet.kernel_size": ("5", count),
    "unet.head_groups": ("2", lambda net: net.head[0][1].num_groups),  # type: ignore[index, union-attr]
    "unet.groups": ("4", lambda net: net.head[0][1].num_groups),  # type: ignore[index, union-attr]
    "unet.step_embedding_dim": ("16", count),
    "unet.film_scale": ("false", count),
    "transformer.embedding_dim": ("32", count),
    "transformer.layers": ("1", lambda net: len(net.decoder.layers)),  # type: ignore[union-attr, arg-type]
    "transformer.heads": ("2", lambda net: net.decoder.layers[0].self_attn.num_heads),  # type: ignore[union-attr, index]
    "transformer.embedding_dropout": ("0.3", lambda net: net.dropout.p),  # type: ignore[union-attr]
    "transformer.attention_dropout": ("0.3", lambda net: net.decoder.layers[0].dropout1.p),  # type: ignore[union-attr, index]
    "transformer.causal": ("false", lambda net: net.causal_mask is None),
    "mlp.hidden_dims": ("[16]", count),
    "mlp.step_embedding_dim": ("16", count),
}


def test_the_table_names_every_field() -> None:
    assert model_fields("robot") == set(MODEL_FIELDS)


@pytest.mark.parametrize("key", list(MODEL_FIELDS))
def test_a_model_field_changes_the_network(key: str, tiny_config: Build) -> None:
    name, field = key.split(".")
    value, look = MODEL_FIELDS[key]
    small = {"unet": [], "transformer": ["model.embedding_dim=16", "model.layers=2"], "mlp": ["model.hidden_dims=[8]"]}
    base = [f"model={name}", *small[name]]
    plain, changed = (
        look(build_policy(tiny_config(*base, *change), 5, 2).denoiser) for change in ([], [f"model.{field}={value}"])
    )
    assert plain != changed
