"""diffusers' UNet2DModel and its schedulers."""

from __future__ import annotations

import inspect
import itertools
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from policy_accel.data.images.encoding import Encoding
from policy_accel.errors import UserError
from policy_accel.images.foreign.to_diffusers import write_pipeline
from policy_accel.images.foreign.unet2d import DEFAULTS, FIXED
from policy_accel.images.track import IMAGES
from policy_accel.run_files import results_folder, weights_file

from .unets import unet

DOWN, ATTN_DOWN, UP, ATTN_UP = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
DEEP = {
    "sample_size": 32,
    "block_out_channels": (8, 8, 16, 16, 32, 32),
    "layers_per_block": 2,
    "down_block_types": (DOWN, DOWN, DOWN, DOWN, ATTN_DOWN, DOWN),
    "up_block_types": (UP, ATTN_UP, UP, UP, UP, UP),
}
NETWORKS = {
    "ddpm-cifar10-32": {
        "block_out_channels": (8, 16, 16, 16),
        "layers_per_block": 2,
        "down_block_types": (DOWN, ATTN_DOWN, DOWN, DOWN),
        "up_block_types": (UP, UP, ATTN_UP, UP),
    },
    "ddpm-celebahq-256": DEEP,
    "training example": DEEP,
    "butterflies": {
        "block_out_channels": (8, 16, 16, 32),
        "layers_per_block": 2,
        "down_block_types": (DOWN, DOWN, ATTN_DOWN, ATTN_DOWN),
        "up_block_types": (ATTN_UP, ATTN_UP, UP, UP),
    },
    "defaults": {
        "block_out_channels": (8, 16, 24, 32),
        "layers_per_block": 2,
        "down_block_types": tuple(DEFAULTS["down_block_types"]),
        "up_block_types": tuple(DEFAULTS["up_block_types"]),
    },
}
"""The fields of public models, narrow: google/ddpm-*, diffusers' examples and its tutorial, its bare UNet2DModel."""
TIMES = "time_embedding.linear_1.weight"
ASSUMED = DEFAULTS | {name: default for name, (default, _) in FIXED.items()}
OURS_OTHERWISE = ("attention_head_dim", "flip_sin_to_cos", "freq_shift", "downsample_padding", "norm_eps")
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def drawn(run, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.randn(2, *run.shape, generator=generator) for _ in itertools.count())
    images = run.sampler(run.sampler.denoiser(run.model, None), noise)
    return (images / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "safe"),
    [
        (DDPMPipeline, DDPMScheduler(num_train_timesteps=8, variance_type="fixed_large"), True),
        (
            DDIMPipeline,
            DDIMScheduler(num_train_timesteps=4, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
            False,
        ),
    ],
)
def test_a_pipeline_makes_the_same_images(tmp_path, pipeline, scheduler, safe):
    pipe = pipeline(unet(), scheduler)
    pipe.save_pretrained(tmp_path, safe_serialization=safe)
    run = IMAGES.load(weights_file(tmp_path))
    pipe.set_progress_bar_config(disable=True)
    steps, generator = run.config.sampling.steps, torch.Generator().manual_seed(3)
    theirs = pipe(batch_size=2, num_inference_steps=steps, generator=generator, output_type="np").images
    expected = torch.from_numpy(theirs).permute(0, 3, 1, 2)
    assert expected.std() > 0.1
    torch.testing.assert_close(drawn(run, 3), expected, atol=1e-5, rtol=1e-4)


def test_the_defaults_that_a_config_leaves_out_are_those_of_diffusers():
    signature = inspect.signature(UNet2DModel.__init__).parameters
    default = {name: signature[name].default for name in ASSUMED}
    assert default == {name: tuple(value) if isinstance(value, list) else value for name, value in ASSUMED.items()}


@pytest.mark.parametrize(
    "name", ["ddpm-cifar10-32", "ddpm-celebahq-256", "training example", "butterflies", "defaults"]
)
def test_published_networks_and_the_way_back(tmp_path, name):
    """The same predictions, and weights that are exported with the bits that were imported."""
    settings = NETWORKS[name]
    kept = {} if name.startswith("ddpm-") else {entry: ASSUMED[entry] for entry in OURS_OTHERWISE}
    net = unet(**{**kept, **settings})
    net.save_pretrained(tmp_path / "theirs")
    run = IMAGES.load(weights_file(tmp_path / "theirs"))
    x, t = torch.randn(2, *run.shape), torch.tensor([3, 700])
    with torch.no_grad():
        expected = net(x, t).sample
        torch.testing.assert_close(run.model(x, t), expected, atol=1e-5, rtol=1e-4)
    write_pipeline(run, tmp_path / "ours")
    again = UNet2DModel.from_pretrained(tmp_path / "ours" / "unet")
    with torch.no_grad():
        torch.testing.assert_close(again(x, t).sample, expected, atol=1e-5, rtol=1e-4)
    state = again.state_dict()
    if net.config.flip_sin_to_cos:  # which ours, sines first, has in the order of the columns
        state[TIMES] = state[TIMES].roll(state[TIMES].shape[1] // 2, dims=1)
    for part, tensor in net.state_dict().items():
        torch.testing.assert_close(state[part], tensor, rtol=0, atol=0, msg=part)


@pytest.mark.parametrize(("said", "scale"), [({}, 0.18215), ({"scaling_factor": 0.5}, 0.5)])
def test_what_a_pipeline_with_an_autoencoder_draws_are_latents(tmp_path, said, scale):
    """As CompVis/ldm-celebahq-256 is laid out."""
    unet().save_pretrained(tmp_path / "unet")
    (tmp_path / "vqvae").mkdir()
    (tmp_path / "vqvae" / "config.json").write_text(json.dumps(said))
    (tmp_path / "model_index.json").write_text(json.dumps({"vqvae": ["diffusers", "VQModel"]}))
    run = IMAGES.load(weights_file(tmp_path))
    assert run.representation.encoding == Encoding(scale=(scale,))


@pytest.mark.parametrize("said", [{"vae": [None, None], "classes": "cat"}, {"vqvae": None, "classes": {"0": "cat"}}])
def test_parts_that_a_pipeline_goes_without(tmp_path, said):
    """diffusers writes null for those; and only names in a list are of classes."""
    unet(num_class_embeds=3).save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text(json.dumps(said))
    run = IMAGES.load(weights_file(tmp_path))
    assert (run.representation.latents, run.classes) == (False, ("0", "1", "2"))


@pytest.mark.parametrize("place", ["", "unet"])
def test_what_is_made_of_a_folder_lies_beside_it(tmp_path, place):
    net = tmp_path / "model" / place
    net.mkdir(parents=True)
    (net / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (net / "diffusion_pytorch_model.safetensors").touch()
    assert results_folder(weights_file(tmp_path / "model")) == tmp_path / "model.evaluation"


def test_a_model_of_classes_with_older_names(tmp_path, recwarn):
    net = unet(num_class_embeds=3)
    net.save_pretrained(tmp_path, safe_serialization=False)
    state = {}
    for name, tensor in net.state_dict().items():
        for newer, older in OLDER.items():
            name = name.replace(f".{newer}.", f".{older}.")
        state[name] = tensor
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    scheduler = {"_class_name": "DDPMScheduler", "variance_type": "fixed_small_log"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    run = IMAGES.load(weights_file(tmp_path))
    assert run.classes == ("0", "1", "2")
    assert any("variance_type=fixed_small_log" in str(warning.message) for warning in recwarn)
    x, t, labels = torch.randn(2, 3, 8, 8), torch.tensor([3, 700]), torch.tensor([0, 2])
    with torch.no_grad():
        expected = net(x, t, labels).sample
        torch.testing.assert_close(run.model(x, t, torch.eye(3)[labels]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"downsample_padding": 2}, "its downsample_padding=2 is none of ours, 0, 1"),
        ("config.json", {"freq_shift": 2}, "its freq_shift=2 is none of ours, 0 and 1"),
        ("config.json", {"norm_num_groups": 5}, "model.groups=5 does not divide model.channels=16"),
        ("config.json", {"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "type SkipDownBlock2D are none"),
        ("config.json", {"layers_per_block": 2}, "it has no tensor down_blocks.0.resnets.1.norm1.weight"),
        ("scheduler_config.json", {"_class_name": "PNDMScheduler"}, "its scheduler PNDMScheduler is none of DDPM"),
        ("scheduler_config.json", {"prediction_type": "flow"}, "its prediction_type 'flow' is unknown"),
    ],
)
def test_what_ours_does_not_have_is_refused(tmp_path, saved, file, change, reason):
    for name, values in saved.items():
        (tmp_path / name).write_bytes(values)
    record = json.loads((tmp_path / file).read_text()) if (tmp_path / file).is_file() else {}
    (tmp_path / file).write_text(json.dumps({"_class_name": "DDPMScheduler", **record, **change}))
    with pytest.raises(UserError, match=reason):
        IMAGES.load(weights_file(tmp_path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, bytes]:
    """The files of a model."""
    folder: Path = tmp_path_factory.mktemp("unet")
    unet().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
