from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy_accel import Policy
from policy_accel.errors import UserError

from .straight import LEROBOT, PictureEncoder, Random, sampled, scheduler, unet, unet_tensors
from .test_diffusion_policy import save, states

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
CONFIG: dict[str, Any] = {
    "type": "diffusion",
    "n_obs_steps": 2,
    "horizon": 8,
    "n_action_steps": 4,
    "n_groups": 8,
    "down_dims": [8, 16],
    "noise_scheduler_type": "DDPM",
    "num_inference_steps": 5,
    "crop_shape": None,
    "normalization_mapping": MODES,
}


class Written:
    """A policy of LeRobot with random weights, on the disk and as formulas.

    `form` is where statistics lie: "processors", or the "buffers" of older policies, or "shapes" for those of 2024.
    """

    def __init__(
        self,
        folder: Path,
        numbers: dict[str, int],
        pictures: dict[str, tuple[int, ...]],
        action: int,
        form: str,
        **own: Any,
    ) -> None:
        self.config = {**CONFIG, **own}
        self.numbers, self.pictures, self.folder = numbers, pictures, folder
        self.modes = self.config["normalization_mapping"]
        self.encoders: list[PictureEncoder] = []
        features = 0
        if pictures:
            size = self.config["crop_shape"] or next(iter(pictures.values()))[1:]
            separate = self.config["use_separate_rgb_encoder_per_camera"]
            group_norm = self.config["use_group_norm"]
            count = len(pictures) if separate else 1
            self.encoders = [PictureEncoder(tuple(size), 4, group_norm=group_norm).eval() for _ in range(count)]
            features = 8 * len(pictures)
        condition = self.config["n_obs_steps"] * (sum(numbers.values()) + features)
        film = self.config.get("use_film_scale_modulation", True)
        self.unet = unet_tensors(LEROBOT, action, condition, self.config["down_dims"], film_scale=film)
        self.statistics = self._statistics(action)
        self._write(form, action)

    def _statistics(self, action: int) -> dict[str, dict[str, Tensor]]:
        random, found = Random(1), {}
        shapes = {name: (size,) for name, size in {**self.numbers, "action": action}.items()}
        for name, shape in {**shapes, **{name: (shape[0], 1, 1) for name, shape in self.pictures.items()}}.items():
            low = random.normal(*shape) * (0.1 if len(shape) == 3 else 100)
            width = random.normal(*shape).abs() + 0.5
            found[name] = {
                "min": low,
                "max": low + width,
                "mean": low,
                "std": width,
                "q01": low,
                "q99": low + 2 * width,
            }
        return found

    def _write(self, form: str, action: int) -> None:
        kinds = {STATE: "STATE", ENVIRONMENT: "ENV"}
        shapes = {**{name: [size] for name, size in self.numbers.items()}, **self.pictures}
        self.folder.mkdir()
        config = dict(self.config)
        if form == "shapes":
            modes = config.pop("normalization_mapping")
            del config["type"]
            config |= {"input_shapes": shapes, "output_shapes": {"action": [action]}}
            config["input_normalization_modes"] = {
                name: modes.get(kinds.get(name, "VISUAL"), "identity").lower() for name in shapes
            }
            config["output_normalization_modes"] = {"action": modes["ACTION"].lower()}
        else:
            config["input_features"] = {
                name: {"type": kinds.get(name, "VISUAL"), "shape": list(shape)} for name, shape in shapes.items()
            }
            config["output_features"] = {"action": {"type": "ACTION", "shape": [action]}}
        (self.folder / "config.json").write_text(json.dumps(config))
        tensors = {f"diffusion.unet.{name}": tensor for name, tensor in self.unet.items()}
        for place, encoder in enumerate(self.encoders):
            prefix = f"diffusion.rgb_encoder.{place}." if len(self.encoders) > 1 else "diffusion.rgb_encoder."
            for name, tensor in encoder.state_dict().items():
                tensors[prefix + name.replace("maps.", "pool.nets.")] = tensor.clone()
            tensors[f"{prefix}pool.pos_grid"] = torch.zeros(1, 2)
        flat = {
            f"{name}.{part}": value.clone() for name, parts in self.statistics.items() for part, value in parts.items()
        }
        if form == "processors":
            for side, kind in (("pre", "normalizer"), ("post", "unnormalizer")):
                file = f"policy_{side}processor_step_2_{kind}_processor.safetensors"
                save_file(flat, self.folder / file)
                normalizer = {
                    "registry_name": f"{kind}_processor",
                    "config": {"norm_map": self.modes},
                    "state_file": file,
                }
                steps = [{"registry_name": "to_batch_processor", "config": {}}, normalizer]
                (self.folder / f"policy_{side}processor.json").write_text(json.dumps({"steps": steps}))
        else:
            for key, value in flat.items():
                name, _, part = key.rpartition(".")
                buffer = f"buffer_{name.replace('.', '_')}.{part}"
                tensors[f"unnormalize_outputs.{buffer}" if name == "action" else f"normalize_inputs.{buffer}"] = value
        save_file(tensors, self.folder / "model.safetensors")

    def normalized(self, name: str, kind: str, values: Tensor, *, inverse: bool = False) -> Tensor:
        mode, found = self.modes.get(kind, "IDENTITY"), self.statistics[name]
        if mode == "IDENTITY":
            return values
        if mode == "MEAN_STD":
            return (
                values * found["std"] + found["mean"] if inverse else (values - found["mean"]) / (found["std"] + 1e-8)
            )
        low, high = (found["min"], found["max"]) if mode == "MIN_MAX" else (found["q01"], found["q99"])
        return (values + 1) / 2 * (high - low) + low if inverse else 2 * (values - low) / (high - low) - 1

    def actions(self, observation: dict[str, np.ndarray], noise: Tensor, queue: list[Tensor]) -> Tensor:
        """Normalised actions that are executed, for observations [T, ...] by name, by the formulas."""
        steps, config = self.config["n_obs_steps"], self.config
        parts = [self.normalized(STATE, "STATE", torch.from_numpy(observation[STATE]).float())]
        for place, name in enumerate(self.pictures):
            frames = torch.from_numpy(observation[name]).permute(0, 3, 1, 2).float() / 255
            parts.append(self.encoders[place % len(self.encoders)](self.normalized(name, "VISUAL", frames)))
        if ENVIRONMENT in self.numbers:
            parts.append(self.normalized(ENVIRONMENT, "ENV", torch.from_numpy(observation[ENVIRONMENT]).float()))
        condition = torch.cat(parts, dim=1).reshape(1, -1)
        kind = config["noise_scheduler_type"].lower()
        settings = {
            name: config[name] for name in ("clip_sample", "prediction_type", "beta_schedule") if name in config
        }

        def network(x: Tensor, t: int) -> Tensor:
            return unet(self.unet, LEROBOT, x, t, condition, config["n_groups"])

        plan = sampled(scheduler(kind, **settings), config["num_inference_steps"], noise[None], network, queue)
        return plan[0, steps - 1 : steps - 1 + config["n_action_steps"]]

    def observation(self) -> dict[str, np.ndarray]:
        """Observations [n_obs_steps, ...] by name."""
        draw, steps = np.random.default_rng(0), self.config["n_obs_steps"]
        found: dict[str, np.ndarray] = {}
        for name, size in self.numbers.items():
            low, high = (self.statistics[name][part].numpy() for part in ("min", "max"))
            found[name] = (low + draw.random((steps, size)) * (high - low)).astype(np.float32)
        for name, (channels, height, width) in self.pictures.items():
            found[name] = draw.integers(0, 256, (steps, height, width, channels), dtype=np.uint8)
        return found


PLAIN = {STATE: 3, ENVIRONMENT: 4}
TWO = {"observation.images.top": (3, 48, 56), "observation.images.wrist": (3, 48, 56)}
CASES: dict[str, tuple[dict[str, int], dict[str, tuple[int, ...]], int, str, dict[str, Any]]] = {
    "states": (PLAIN, {}, 2, "processors", {"normalization_mapping": {**MODES, "ENV": "QUANTILES"}}),
    "environment first, bias alone": (
        {ENVIRONMENT: 4, STATE: 3},
        {},
        3,
        "buffers",
        {
            "normalization_mapping": {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
            "noise_scheduler_type": "DDIM",
            "prediction_type": "sample",
            "clip_sample": False,
            "beta_schedule": "linear",
            "n_groups": 4,
            "down_dims": [8, 16, 24],
            "use_film_scale_modulation": False,
            "n_obs_steps": 1,
        },
    ),
    "a camera of 2024": (
        {STATE: 2},
        {"observation.image": (3, 48, 48)},
        2,
        "shapes",
        {"crop_shape": [40, 40], "use_group_norm": True, "use_separate_rgb_encoder_per_camera": False},
    ),
    "two cameras": (
        PLAIN,
        TWO,
        2,
        "processors",
        {"crop_shape": [40, 50], "use_group_norm": False, "use_separate_rgb_encoder_per_camera": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_actions(case: str, tmp_path: Path, chosen_noise: list[Tensor]) -> None:
    numbers, pictures, action, form, settings = CASES[case]
    written = Written(tmp_path / "policy", numbers, pictures, action, form, **settings)
    policy = Policy.from_pretrained(written.folder, device="cpu")
    network, sampler = policy.run.policy, policy.run.sampler
    noise = torch.randn(network.noise_shape(sampler), generator=torch.Generator().manual_seed(5))
    observation = written.observation()
    expected = written.actions(observation, noise, chosen_noise)
    states = np.concatenate([observation[name] for name in (STATE, ENVIRONMENT) if name in observation], axis=1)
    given: Any = torch.from_numpy(states)[None]
    if pictures:
        given = {"state": given, **{name: torch.from_numpy(observation[name])[None] for name in pictures}}
    actions = network.predict(given, noise[None], sampler=sampler)
    normalized = network.action_normalizer(actions)[0]
    torch.testing.assert_close(normalized, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        actions[0], written.normalized("action", "ACTION", expected, inverse=True), rtol=1e-5, atol=1e-5
    )
    assert policy.act({name: values[-1] for name, values in observation.items()}).shape == (action,)


def test_the_example_of_the_docs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (repository / "docs" / "how_to" / "foreign_policies.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "theirs").mkdir()
    Written(tmp_path / "theirs" / "pretrained_model", PLAIN, {}, 2, "processors")
    save(tmp_path / "theirs" / "epoch=0550.ckpt", states(20, 2))
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert Policy.from_pretrained("shared/theirs").run.config.task.name == "pusht_keypoints"


def test_resized_pictures(tmp_path: Path) -> None:
    """They are resized as numbers, not as bytes."""
    shapes = {"observation.image": (3, 60, 70)}
    settings = {"resize_shape": [48, 52], "use_group_norm": True, "use_separate_rgb_encoder_per_camera": False}
    written = Written(tmp_path / "policy", {STATE: 2}, shapes, 2, "processors", crop_shape=[40, 40], **settings)
    encoder = Policy.from_pretrained(written.folder, device="cpu").run.policy.encoder
    assert encoder is not None
    frames = torch.from_numpy(written.observation()["observation.image"])
    planes = written.normalized("observation.image", "VISUAL", frames.permute(0, 3, 1, 2).float() / 255)
    small = torch.nn.functional.interpolate(planes, (48, 52), mode="bilinear", antialias=True)
    seen = encoder({"state": torch.zeros(1, 2, 2), "observation.image": frames[None]})[0, :, :8]
    torch.testing.assert_close(seen, written.encoders[0](small), rtol=0, atol=1e-5)


def test_a_constant_dimension(tmp_path: Path) -> None:
    """An action that never changed in the data is that value; the same state is seen at the edge."""
    written = Written(tmp_path / "policy", {STATE: 2}, {}, 2, "buffers")
    tensors = load_file(written.folder / "model.safetensors")
    for name in ("normalize_inputs.buffer_observation_state", "unnormalize_outputs.buffer_action"):
        tensors[f"{name}.max"][0] = tensors[f"{name}.min"][0]
    save_file(tensors, written.folder / "model.safetensors")
    network = Policy.from_pretrained(written.folder, device="cpu").run.policy
    low = tensors["normalize_inputs.buffer_observation_state.min"]
    assert network.observation_normalizer(low).tolist() == [-1.0, -1.0]
    constant = tensors["unnormalize_outputs.buffer_action.min"][0]
    assert network.action_normalizer.inverse(torch.tensor([0.7, 0.7]))[0] == constant


def test_a_policy_is_saved_as_ours_and_its_own_settings(tmp_path: Path) -> None:
    written = Written(tmp_path / "policy", PLAIN, {}, 2, "processors")
    settings = {"policy.n_action_steps": 2, "task.name": "mine"}
    policy = Policy.from_pretrained(written.folder, device="cpu", settings=settings)
    policy.save_pretrained(tmp_path / "ours")
    again = Policy.from_pretrained(tmp_path / "ours", device="cpu")
    assert again.run.config.policy.n_action_steps == 2
    observation = {name: values[-1] for name, values in written.observation().items()}
    for _ in range(5):
        np.testing.assert_array_equal(again.act(observation), policy.act(observation))
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "read from LeRobot: model.safetensors" in card
    assert "`mine`" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "act"}, "it is a policy of type 'act', and only diffusion is read"),
        ({"beta_schedule": "sigmoid"}, "its beta_schedule 'sigmoid' is none of ours"),
        ({"noise_scheduler_type": "EULER"}, "its noise_scheduler_type 'EULER' is neither DDPM nor DDIM"),
        ({"horizon": None}, "its horizon=None is no number from 1 on"),
        ({"clip_sample_range": "x"}, "its clip_sample_range='x' is no positive number"),
        ({"n_obs_steps": 3}, "its network takes 2 numbers of an action and 14 of observations, and config.json says 2"),
        ({"n_action_steps": 8}, "policy.n_action_steps=8 is more than horizon - n_obs_steps"),
        ({"output_features": {}}, "config.json does not say the shapes of its inputs and outputs"),
        ({"normalization_mapping": {"STATE": "TEN"}}, "normalises observation.state by TEN, which is unknown"),
    ],
)
def test_what_cannot_be_read_is_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    written = Written(tmp_path / "policy", PLAIN, {}, 2, "buffers")
    record = written.folder / "config.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))
    with pytest.raises(UserError) as told:
        Policy.from_pretrained(written.folder, device="cpu")
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_weights_and_statistics_that_are_not_there(tmp_path: Path) -> None:
    written = Written(tmp_path / "policy", PLAIN, {}, 2, "buffers")
    weights = written.folder / "model.safetensors"
    tensors = load_file(weights)
    for gone, message in (
        ("diffusion.unet.mid_modules.0.conv1.block.0.bias", "does not fit our network"),
        ("normalize_inputs.buffer_observation_state.min", "it has no min of observation.state"),
    ):
        save_file({name: tensor for name, tensor in tensors.items() if name != gone}, weights)
        with pytest.raises(UserError, match=message):
            Policy.from_pretrained(written.folder, device="cpu")
    tensors["unnormalize_outputs.buffer_action.max"][0] = float("inf")
    save_file(tensors, weights)
    with pytest.raises(UserError, match="the statistics of action are not finite"):
        Policy.from_pretrained(written.folder, device="cpu")
    weights.write_bytes(b"none")
    with pytest.raises(UserError, match="holds no tensors"):
        Policy.from_pretrained(written.folder, device="cpu")
