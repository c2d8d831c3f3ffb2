"""diffusers' UNet2DModel and its schedulers."""

from __future__ import annotations

import inspect
import itertools
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from policy_accel.errors import UserError
from policy_accel.images.foreign.to_diffusers import write_pipeline
from policy_accel.images.foreign.unet2d import DEFAULTS
from policy_accel.images.track import IMAGES
from policy_accel.run_files import results_folder, weights_file

OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def unet(**settings) -> UNet2DModel:
    """The published CIFAR-10 architecture, small."""
    torch.manual_seed(0)
    net = UNet2DModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": None,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "downsample_padding": 0,
            "norm_eps": 1e-6,
            "norm_num_groups": 4,
            **settings,
        }
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


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


def test_a_model_of_diffusers_own_defaults(tmp_path):
    """As its training example makes it, and back: cosines first, other frequencies, padding, groups, heads."""
    kept = ("attention_head_dim", "flip_sin_to_cos", "freq_shift", "downsample_padding", "norm_eps")
    signature = inspect.signature(UNet2DModel.__init__).parameters
    assert {name: signature[name].default for name in kept} == {name: DEFAULTS[name] for name in kept}
    net = unet(**{name: DEFAULTS[name] for name in kept}, norm_num_groups=8)
    net.save_pretrained(tmp_path / "theirs")
    run = IMAGES.load(weights_file(tmp_path / "theirs"))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    with torch.no_grad():
        expected = net(x, t).sample
        torch.testing.assert_close(run.model(x, t), expected, atol=1e-5, rtol=1e-4)
    write_pipeline(run, tmp_path / "ours")
    with torch.no_grad():
        again = UNet2DModel.from_pretrained(tmp_path / "ours" / "unet")(x, t).sample
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-4)


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
