"""Networks of EDM2, read without unpickling."""

from __future__ import annotations

import pytest
import torch

from policy_accel.data.images.encoding import EDM2
from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.models.images import Edm2Config

from .edm2_files import edm2_tensors, write_edm2
from .files import network

CONFIG = Edm2Config(
    channels=16, multipliers=[1, 2], blocks=1, attention_resolutions=[4], dropout=0.1, head_channels=8, uncertainty=12
)


def rounded(**sizes):
    """A network whose gains do something and whose weights are half precision's, as those in the file are."""
    net = network(CONFIG, **sizes)
    for tensor in net.state_dict().values():
        tensor.copy_((tensor if tensor.ndim else tensor + 0.5).half())
    return net


def test_a_snapshot_of_pixels_with_classes(tmp_path):
    net = rounded(condition_dim=3, classes=3)
    run = IMAGES.load(write_edm2(tmp_path / "edm2.pkl", edm2_tensors(net), sigma_data=0.7))
    assert run.config.model == CONFIG
    assert (run.shape, run.classes, run.config.diffusion.sigma_data) == ((3, 8, 8), ("0", "1", "2"), 0.7)
    assert (run.config.sampling.sampler, run.config.sampling.steps) == ("heun", 32)
    assert not run.representation.latents
    x, t, condition = torch.randn(2, 3, 8, 8), torch.tensor([0.3, -0.7]), torch.eye(3)[[2, 0]]
    with torch.no_grad():
        expected = net(x, t, condition)
        assert expected.std() > 0.1
        torch.testing.assert_close(run.model(x, t, condition), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(run.model.uncertainty(t), net.uncertainty(t))


def test_a_snapshot_of_latents_without_classes(tmp_path):
    tensors = edm2_tensors(rounded())
    path = write_edm2(tmp_path / "edm2.pkl", tensors, encoder="StabilityVAEEncoder", told={"vae_name": "another"})
    run = IMAGES.load(path)
    assert (run.representation.encoding, run.classes) == (EDM2, ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extra": "unet.enc.8x8_aux.weight"}, "has a part 8x8_aux, which ours does not have"),
        ({"extra": "unet.emb_other.weight"}, "has unet.emb_other.weight, which ours does not have"),
        ({"attn_balance": 0.5}, "its attn_balance=0.5 is not 0.3, which our network has"),
        ({"encoder": "OtherEncoder"}, r"made by OtherEncoder\({}\), which is none of StandardRGBEncoder"),
        ({"encoder": "StabilityVAEEncoder", "told": {"final_std": 1.0}}, "{'final_std': 1.0}"),
    ],
)
def test_what_ours_does_not_have_is_refused(tmp_path, change, reason):
    tensors = edm2_tensors(rounded())
    if "extra" in change:
        tensors[change.pop("extra")] = torch.zeros(1)
    with pytest.raises(UserError, match=reason):
        IMAGES.load(write_edm2(tmp_path / "edm2.pkl", tensors, **change))
