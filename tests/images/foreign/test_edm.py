"""Networks of EDM, read without unpickling."""

from __future__ import annotations

import io
import pickle

import pytest
import safetensors.torch
import torch

from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.models.images import AdmConfig, EdmConfig

from .files import edm_tensors, network, write_edm

SIZES = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": [4]}
INPUT = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def same(run, net, condition) -> None:
    t = torch.tensor([0.3, -0.7])
    with torch.no_grad():
        expected, found = net(INPUT, t, condition), run.model(INPUT, t, condition)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_snapshot_is_read_as_data(tmp_path):
    net = network(EdmConfig(**SIZES), condition_dim=12, classes=3)  # three classes, and an augmentation
    path = write_edm(tmp_path / "network-snapshot-000100.pkl", edm_tensors(net, 8), sigma_data=0.7)
    run = IMAGES.load(path)  # whose source would end the process
    assert (run.shape, run.classes, run.config.diffusion.sigma_data) == ((3, 8, 8), ("0", "1", "2"), 0.7)
    assert (run.config.task.label_dropout, run.config.sampling.sampler) == (0.1, "heun")
    condition = torch.zeros(2, 12)
    condition[0, 2] = condition[1, 0] = condition[1, 5] = 1.0
    same(run, net, condition)


def test_tensors_of_an_adm_network_as_safetensors(tmp_path):
    net = network(AdmConfig(channels=64, multipliers=[1, 1], blocks=1, attention_resolutions=[4]), condition_dim=3)
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in edm_tensors(net, 8).items()}
    safetensors.torch.save_file(tensors, tmp_path / "edm.safetensors")
    run = IMAGES.load(tmp_path / "edm.safetensors")
    assert run.config.model.name == "adm"
    same(run, net, torch.eye(3)[[0, 2]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "iDDPMPrecond"}, "its preconditioning 'iDDPMPrecond' is none of ours"),
        ({"extra": "enc.8x8_aux_skip.weight"}, "has a part 8x8_aux_skip, which ours does not have"),
        ({"extra": "map_other.weight"}, "has map_other.weight, which ours does not have"),
    ],
)
def test_what_ours_does_not_have_is_refused(tmp_path, change, reason):
    tensors = edm_tensors(network(EdmConfig(**SIZES), condition_dim=3, classes=3), 8)
    if "extra" in change:
        tensors[change.pop("extra")] = torch.zeros(1)
    path = write_edm(tmp_path / "other.pkl", tensors, **change)
    with pytest.raises(UserError, match=reason):
        IMAGES.load(path)


def saved(content) -> bytes:
    torch.save(content, file := io.BytesIO())
    return file.getvalue()


class Harm:
    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no pickle", "is no pickle of a network that can be read as data"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.", "is no pickle of a network that can be read as data"),
        (pickle.dumps({"ema": Harm()}), "it holds a exec, not a snapshot of EDM or EDM2"),
        (pickle.dumps({"ema": torch.nn.Linear(2, 2)}), "it holds a Linear, not a snapshot of EDM or EDM2"),
        (pickle.dumps(torch.nn.Linear(2, 2)), "it holds a Linear, not a snapshot of EDM or EDM2; give a network-snap"),
        (saved(torch.nn.Linear(2, 2)), "is of torch.save, which EDM and EDM2 do not use .*; give a network-snapshot"),
        (pickle.dumps({"net": 1}), "it holds no averaged network"),
        (pickle.dumps([1]), "it holds a list, not a snapshot of EDM or EDM2"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, reason):
    path = tmp_path / "other.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        IMAGES.load(path)
