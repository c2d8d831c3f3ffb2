from __future__ import annotations

import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from policy_accel import Policy
from policy_accel.cli import main
from policy_accel.errors import UserError

from .straight import STANFORD, PictureEncoder, Random, sampled, scheduler, unet, unet_tensors

Tensors = dict[str, Tensor]


def normalizer(name: str, size: int, seed: int) -> Tensors:
    random = Random(seed)
    values = {"scale": 0.01 * (1 + random.normal(size).abs()), "offset": random.normal(size)}
    return {f"normalizer.params_dict.{name}.{part}": value for part, value in values.items()}


def save(path: Path, network: Tensors, config: Any = None, state: str = "ema_model", **more: Any) -> Path:
    """A checkpoint as its workspace writes it, with other weights beside the averaged ones."""
    trained = OrderedDict((name, tensor + 1) for name, tensor in network.items())
    states = {"model": trained, state: OrderedDict(network), "optimizer": {"state": {}, "param_groups": []}}
    pickled = None if config is None else OmegaConf.create(config)
    torch.save({"cfg": pickled, "state_dicts": states, "pickles": {"epoch": b"never read"}} | more, path)
    return path


def states(observations: int, actions: int, *, condition: int | None = None) -> Tensors:
    """Weights of a policy of `observations` numbers and `actions`, of two observations."""
    condition = 2 * observations if condition is None else condition
    channels = actions if condition else actions + observations
    network = {f"model.{name}": tensor for name, tensor in unet_tensors(STANFORD, channels, condition).items()}
    network |= normalizer("obs", observations, 1) | normalizer("action", actions, 2)
    return {**network, "_dummy_variable": torch.zeros(0), "mask_generator._dummy_variable": torch.zeros(0)}


def expected(
    network: Tensors, condition: Tensor, noise: Tensor, queue: list[Tensor], steps: int, kind: str = "ddpm"
) -> Tensor:
    """The normalised plan by the formulas."""
    weights = {name.removeprefix("model."): tensor for name, tensor in network.items() if name.startswith("model.")}

    def predicted(x: Tensor, t: int) -> Tensor:
        return unet(weights, STANFORD, x, t, condition)

    return sampled(scheduler(kind), steps, noise[None], predicted, queue)[0]


def noise_of(policy: Policy) -> Tensor:
    shape = policy.run.policy.noise_shape(policy.run.sampler)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("configured", [True, False])
def test_actions_of_states(configured: bool, tmp_path: Path, chosen_noise: list[Tensor]) -> None:
    """Without a configuration that can be read the published settings of Push-T are taken."""
    network = states(20, 2)
    process = {"_target_": "diffusers.DDIMScheduler", "num_train_timesteps": 100, "clip_sample": True}
    config = {"policy": {"horizon": 8, "n_action_steps": 3, "num_inference_steps": 5, "noise_scheduler": process}}
    steps, kind, horizon, executed = (5, "ddim", 8, 3) if configured else (100, "ddpm", 16, 8)
    policy = Policy.load(save(tmp_path / "x.ckpt", network, config if configured else None), device="cpu")
    assert policy.run.config.task.name == "pusht_keypoints"
    observation = 300 * torch.rand(1, 2, 20, generator=torch.Generator().manual_seed(1))
    scale, offset = (network[f"normalizer.params_dict.obs.{part}"] for part in ("scale", "offset"))
    noise = noise_of(policy)
    plan = expected(network, (observation * scale + offset).flatten(1), noise, chosen_noise, steps, kind)
    assert plan.shape == (horizon, 2)
    actions = policy.run.policy.predict(observation, noise[None], sampler=policy.run.sampler)[0]
    scale, offset = (network[f"normalizer.params_dict.action.{part}"] for part in ("scale", "offset"))
    torch.testing.assert_close(actions * scale + offset, plan[1 : 1 + executed], rtol=0, atol=1e-5)


def test_actions_of_pictures(tmp_path: Path, chosen_noise: list[Tensor]) -> None:
    """Its entries come in an order of their own, and a picture is normalised by its own numbers."""
    encoder = PictureEncoder((40, 42), 4, group_norm=True).eval()
    network = {f"model.{name}": tensor for name, tensor in unet_tensors(STANFORD, 2, 2 * (3 + 8 + 1)).items()}
    for name, tensor in encoder.state_dict().items():
        ours = name.replace("backbone.", "backbone.nets.").replace("maps.", "pool.nets.").replace("out.", "nets.3.")
        network[f"obs_encoder.obs_nets.front.{ours}"] = tensor
    network["obs_encoder.obs_nets.front.pool.temperature"] = torch.ones(1)
    network |= normalizer("pose", 3, 1) | normalizer("grip", 1, 2) | normalizer("action", 2, 3)
    network |= {"normalizer.params_dict.front.scale": torch.tensor([3.0])}
    network |= {"normalizer.params_dict.front.offset": torch.tensor([-1.5])}
    shapes = {"pose": {"shape": [3]}, "front": {"shape": [3, 44, 48], "type": "rgb"}, "grip": {"shape": [1]}}
    said = {"horizon": 8, "num_inference_steps": 4, "crop_shape": [40, 42]}
    config = {"shape_meta": {"obs": shapes}, "policy": {**said, "n_action_steps": 7}}
    policy = Policy.load(save(tmp_path / "x.ckpt", network, config), device="cpu")
    draw = np.random.default_rng(0)
    seen = {"pose": draw.random((2, 3)), "grip": draw.random((2, 1))}
    frames = draw.integers(0, 256, (2, 44, 48, 3), dtype=np.uint8)
    parts = {
        name: torch.from_numpy(values).float() * network[f"normalizer.params_dict.{name}.scale"]
        + network[f"normalizer.params_dict.{name}.offset"]
        for name, values in seen.items()
    }
    features = encoder(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 * 3 - 1.5)
    condition = torch.cat([parts["pose"], features, parts["grip"]], 1).reshape(1, -1)
    noise = noise_of(policy)
    plan = expected(network, condition, noise, chosen_noise, 4)
    given = {"state": torch.from_numpy(np.concatenate([seen["pose"], seen["grip"]], 1))[None]}
    given["front"] = torch.from_numpy(frames)[None]
    planned = policy.run.policy.plan(given, noise[None], sampler=policy.run.sampler)[0]
    torch.testing.assert_close(planned, plan, rtol=0, atol=1e-5)
    assert policy.act({"pose": seen["pose"][0], "grip": seen["grip"][0], "front": frames[0]}).shape == (2,)


def test_a_transformer(tmp_path: Path) -> None:
    """Its tensors are those of our own by other names."""
    plain = Policy.load(save(tmp_path / "unet.ckpt", states(4, 2)), device="cpu").run
    dim, network = 8, dict[str, Tensor]()
    random, layer = Random(), torch.nn.TransformerDecoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    for name, size, out in (("input_emb", 2, dim), ("cond_obs_emb", 4, dim), ("head", dim, 2)):
        random.add(name, out, size)
    random.add("encoder.0", 4 * dim, dim)
    random.add("encoder.2", dim, 4 * dim)
    random.norm("ln_f", dim)
    network |= random.tensors | {"pos_emb": random.normal(1, 6, dim), "cond_pos_emb": random.normal(1, 4, dim)}
    network |= {f"decoder.layers.0.{name}": tensor for name, tensor in layer.state_dict().items()}
    saved = {f"model.{name}": tensor for name, tensor in network.items()} | {"model.mask": torch.zeros(6, 6)}
    saved |= {name: tensor for name, tensor in states(4, 2).items() if name.startswith("normalizer")}
    config = {"policy": {"model": {"n_head": 2}, "n_action_steps": 3, "num_inference_steps": 2}}
    run = Policy.load(save(tmp_path / "x.ckpt", saved, config), device="cpu").run
    assert (run.config.policy.horizon, run.config.policy.n_obs_steps) == (6, 3)
    assert run.config.model.causal
    assert run.config.model.heads == 2
    denoiser = run.policy.denoiser.state_dict()
    for ours, theirs in (("observation.weight", "cond_obs_emb.weight"), ("norm.bias", "ln_f.bias")):
        assert torch.equal(denoiser[ours], network[theirs])
    assert len(denoiser) == len(network)
    assert plain.config.model.name == "unet"


def test_in_painting_and_settings_of_the_user(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", states(3, 2, condition=0), state="model")
    run = Policy.load(path, device="cpu", settings={"policy.horizon": 4, "policy.n_action_steps": 2}).run
    assert (run.config.policy.conditioning, run.policy.channels) == ("inpainting", 5)
    assert (run.config.policy.horizon, run.config.task.name) == (4, tmp_path.name)
    for settings, message in (
        ({"policy.horizont": 4}, "'horizont' not in 'PolicyConfig'"),
        ({"task": "pusht_image"}, "sees 0 pictures and task=pusht_image has 1"),
        ({"task": "pushed"}, "task 'pushed' is unknown"),
        ({"policy": 3}, "cannot be read with these settings"),
    ):
        with pytest.raises(UserError, match=message):
            Policy.load(path, device="cpu", settings=settings)


def test_it_is_scored_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "epoch=0550.ckpt", states(20, 2), {"policy": {"num_inference_steps": 1}})
    given = ["--episodes", "1", "--videos", "0", "--workers", "0", "--device", "cpu", "--sampler", "ddim"]
    assert main(["evaluate", str(path), *given]) == 0
    assert "Score" in capsys.readouterr().out
    assert (tmp_path / "epoch=0550.ckpt.evaluation" / "evaluation.json").is_file()


class Hostile:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {os.environ['TOUCHED']}",)


def test_nothing_of_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHED", str(tmp_path / "touched"))
    path = save(tmp_path / "x.ckpt", states(3, 2), more=[Hostile(), {Hostile(): 1}], kind=Path)
    assert Policy.load(path, device="cpu").run.policy.action_dim == 2
    assert not (tmp_path / "touched").exists()


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path, network = tmp_path / "x.ckpt", states(3, 2)
    for content, config, message in (
        ({}, None, "it has no normaliser of actions"),
        ({n: t for n, t in network.items() if "obs" not in n}, None, "it has no normaliser of observations"),
        ({**network, **normalizer("obs", 5, 1)}, None, "takes 2 numbers of a step and 6 of observations"),
        (network, {"policy": {"noise_scheduler": {"beta_schedule": "cosine"}}}, "its beta_schedule 'cosine' is none"),
        (network, {"policy": {"noise_scheduler": {"trained_betas": [0.1, 0.3]}}}, "of no schedule by name for its 100"),
        (network, {"policy": {"noise_scheduler": {"rescale_betas_zero_snr": True}}}, "has rescale_betas_zero_snr"),
        (network, {"policy": {"pred_action_steps_only": True}}, "it was trained with pred_action_steps_only=true"),
        ({**network, "model.more.weight": torch.ones(1)}, None, "does not fit our network"),
        ({**network, "model.final_conv.1.bias": torch.tensor([1.0, float("nan")])}, None, "are not finite"),
    ):
        save(path, content, config)
        with pytest.raises(UserError, match=message):
            Policy.load(path, device="cpu")
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="it holds no state_dicts"):
        Policy.load(path, device="cpu")
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=r"is not a checkpoint that torch.save wrote as a zip"):
        Policy.load(path, device="cpu")


def test_small_files_that_ask_for_much(tmp_path: Path) -> None:
    path, network = tmp_path / "x.ckpt", states(3, 2)
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested, nested]
    save(path, network, cfg={"policy": nested})
    assert Policy.load(path, device="cpu").run.policy.action_dim == 2
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02Nr\xff\xff\xff\x7f.")  # the object of number 2**31 - 1
    with pytest.raises(UserError, match="it numbers more than 1,048,576 objects"):
        Policy.load(path, device="cpu")


def test_storages_that_are_not_as_it_says(tmp_path: Path) -> None:
    whole, path = save(tmp_path / "whole.ckpt", states(3, 2)), tmp_path / "x.ckpt"
    with zipfile.ZipFile(whole) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    storages = {name: value for name, value in content.items() if "/data/" in name}
    rest = {name: value for name, value in content.items() if name not in storages}
    longer = {name: value + bytes(4) for name, value in storages.items()}
    for damaged in (rest, rest | dict.fromkeys(storages, b"short"), rest | longer):
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in damaged.items():
                archive.writestr(name, value)
        with pytest.raises(UserError, match=r"is damaged: its tensor .* cannot be read"):
            Policy.load(path, device="cpu")
