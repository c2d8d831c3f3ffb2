"""Networks of DiT."""

from __future__ import annotations

import argparse

import pytest
import torch

from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.models.images import DitConfig

from .files import network

LAYERS = {
    "input": "x_embedder.proj",
    "time.mix.0": "t_embedder.mlp.0",
    "time.mix.2": "t_embedder.mlp.2",
    "modulation": "final_layer.adaLN_modulation.1",
    "output": "final_layer.linear",
    "blocks.0.modulation": "blocks.0.adaLN_modulation.1",
    "blocks.0.qkv": "blocks.0.attn.qkv",
    "blocks.0.out": "blocks.0.attn.proj",
    "blocks.0.mlp.0": "blocks.0.mlp.fc1",
    "blocks.0.mlp.2": "blocks.0.mlp.fc2",
}


def dit_tensors(net, null):
    """As DiT names them; the null class has a row, which every time's embedding has less."""
    state = net.state_dict()
    rows = state.pop("condition.weight").T
    state["time.mix.2.bias"] = state["time.mix.2.bias"] - null
    found = {f"{LAYERS[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor for name, tensor in state.items()}
    found["y_embedder.embedding_table.weight"] = torch.cat([rows + null, null[None]])
    return {**found, "pos_embed": net.position[None]}


@pytest.mark.parametrize("trained", [False, True])
def test_equals_the_network_that_was_saved(tmp_path, trained):
    net = network(DitConfig(depth=1), condition_dim=4, out_channels=6)
    tensors = dit_tensors(net, torch.randn(384))
    path = tmp_path / "dit.pt"
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    content = {"model": other, "ema": tensors, "opt": {}, "args": argparse.Namespace(model="DiT-S/2")}
    torch.save(content if trained else tensors, path)
    run = IMAGES.load(path)
    assert (run.shape, len(run.classes), run.representation.latents) == ((3, 8, 8), 4, True)
    assert run.config.diffusion.learn_sigma
    x, t, condition = torch.randn(3, 3, 8, 8), torch.tensor([0, 500, 999]), torch.eye(5)[[0, 3, 4], :4]
    with torch.no_grad():
        torch.testing.assert_close(run.model(x, t, condition), net(x, t, condition), atol=1e-4, rtol=1e-4)


def test_other_files_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "layer.pt")
    with pytest.raises(UserError, match=r"it holds a Linear, not the weights of a DiT; give its state_dict"):
        IMAGES.load(tmp_path / "layer.pt")
    torch.save({"net": torch.zeros(1)}, tmp_path / "training-state.pt")
    with pytest.raises(UserError, match=r"it is no DiT .*EDM's networks are in \.pkl files"):
        IMAGES.load(tmp_path / "training-state.pt")
    net = network(DitConfig(depth=1, width=32, heads=2), condition_dim=2)
    torch.save(dit_tensors(net, torch.zeros(32)), tmp_path / "narrow.pt")
    with pytest.raises(UserError, match="its width 32 is of no published DiT"):
        IMAGES.load(tmp_path / "narrow.pt")
