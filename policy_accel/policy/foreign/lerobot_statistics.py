"""How LeRobot's policies normalise what goes in and out: by statistics in their processors, or in their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.foreign.kinds import CONFIG, REMEDY
from policy_accel.foreign.tensor_file import TensorFile
from policy_accel.parsing import read_record
from policy_accel.policy.foreign.stored import PictureStatistics, finite

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
IMAGE, STATE, ENVIRONMENT, ACTION = "VISUAL", "STATE", "ENV", "ACTION"
PLAIN_STEPS = {"to_batch_processor", "device_processor", "rename_observations_processor"}
NORMALIZERS = {"normalizer_processor", "unnormalizer_processor"}
EPSILON = 1e-8
BOUNDS = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}


def features_of(config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> kind and shape of what goes in, and as ACTION of what comes out; also in the form of 2024."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    try:
        if "input_shapes" in config:
            for name, shape in config["input_shapes"].items():
                kind = ENVIRONMENT if name.endswith("environment_state") else IMAGE if len(shape) == 3 else STATE
                found[name] = (kind, tuple(map(int, shape)))
            found[ACTION] = (ACTION, tuple(map(int, config["output_shapes"]["action"])))
        else:
            for name, feature in config["input_features"].items():
                found[name] = (str(feature["type"]), tuple(map(int, feature["shape"])))
            found[ACTION] = (ACTION, tuple(map(int, config["output_features"]["action"]["shape"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{CONFIG} does not say the shapes of its inputs and outputs ({error})") from error
    for name, (kind, shape) in found.items():
        ranks = {IMAGE: 3, STATE: 1, ENVIRONMENT: 1, ACTION: 1}
        if kind not in ranks:
            raise ValueError(f"its input '{name}' is of the type '{kind}', which ours do not see")
        if len(shape) != ranks[kind] or min(shape) < 1:
            raise ValueError(f"its {kind} '{name}' has the shape {shape}")
    if not any(kind == STATE for kind, _ in found.values()):
        raise ValueError("it has no observation.state")
    return found


class Statistics:
    """Statistics of the data, with the way each feature is normalised by them.

    Args:
        modes: kind or name of a feature -> the name of the way.
        inputs: feature -> statistic -> values, of what goes in.
        outputs: the same of what comes out.
        entries: feature -> its name in a robot's observation, where that is another.
    """

    def __init__(
        self,
        modes: Mapping[str, str],
        inputs: Mapping[str, Mapping[str, Tensor]],
        outputs: Mapping[str, Mapping[str, Tensor]],
        entries: dict[str, str],
        kinds: Mapping[str, str],
    ) -> None:
        self.modes, self.inputs, self.outputs, self.entries, self.kinds = modes, inputs, outputs, entries, kinds

    @classmethod
    def read(cls, folder: Path, tensors: TensorFile, config: Mapping[str, Any]) -> Statistics:
        """Of the processors of a newer policy, or of the buffers in an older one's weights."""
        kinds = {name: kind for name, (kind, _) in features_of(config).items()}
        modes = {str(kind): str(mode) for kind, mode in (config.get("normalization_mapping") or {}).items()}
        for section in ("input_normalization_modes", "output_normalization_modes"):
            modes |= {name: str(mode).upper() for name, mode in (config.get(section) or {}).items()}
        if (folder / PREPROCESSOR).is_file():
            before, entries = _processor(folder, PREPROCESSOR, modes)
            after, _ = _processor(folder, POSTPROCESSOR, modes)
            return cls(modes, before, after, entries, kinds)
        buffers = {name: f"normalize_inputs.buffer_{name.replace('.', '_')}." for name in kinds if name != ACTION}
        inputs = {name: tensors.read(prefix) for name, prefix in buffers.items()}
        return cls(modes, inputs, {"action": tensors.read("unnormalize_outputs.buffer_action.")}, {}, kinds)

    def _mode(self, name: str, kind: str) -> str:
        mode = self.modes.get(name, self.modes.get(kind, "IDENTITY"))
        if mode not in ("IDENTITY", "MEAN_STD", *BOUNDS):
            raise ValueError(f"it normalises {name} by {mode}, which is unknown")
        return mode

    def _pair(self, name: str, kind: str, found: Mapping[str, Tensor]) -> tuple[str, Tensor, Tensor] | None:
        """The mode and its two statistics; None where nothing is done."""
        mode = self._mode(name, kind)
        if mode == "IDENTITY":
            return None
        wanted = BOUNDS.get(mode, ("mean", "std"))
        if not found:
            raise ValueError(f"it has no statistics of {name}, which is normalised by {mode}")
        for part in wanted:
            if part not in found:
                raise ValueError(f"it has no {part} of {name}, which is normalised by {mode}")
        low, high = (finite(name, found[part]).flatten() for part in wanted)
        return mode, low, high

    def observed(self, name: str, size: int) -> dict[str, Tensor]:
        """The normaliser of a field [size] of the observation."""
        pair = self._pair(name, self.kinds[name], self.inputs.get(name, {}))
        if pair is None:
            return {"scale": torch.ones(size)}
        mode, low, high = pair
        if mode == "MEAN_STD":
            return {"center": low, "scale": 1 / (high + EPSILON), "offset": torch.zeros_like(low)}
        width = high - low
        width = torch.where(width == 0, EPSILON, width)
        return {"center": low, "scale": 2 / width, "offset": -torch.ones_like(low)}

    def acted(self, size: int) -> dict[str, Tensor]:
        """The normaliser of the action [size], whose inverse is used."""
        pair = self._pair("action", ACTION, self.outputs.get("action", {}))
        if pair is None:
            return {"scale": torch.ones(size)}
        mode, low, high = pair
        gaussian = mode == "MEAN_STD"
        width = high if gaussian else high - low
        varies = width > 0
        scale = (1 if gaussian else 2) / torch.where(varies, width, 1 if gaussian else 2)
        offset = torch.where(varies, -low * scale - (0 if gaussian else 1), 0.0)
        return {"scale": scale, "offset": offset, "varies": varies, "constant": torch.where(varies, 0.0, low)}

    def of_picture(self, name: str, channels: int) -> PictureStatistics:
        """Means and deviations of the channels in [0, 1] by which a picture is normalised."""
        pair = self._pair(name, IMAGE, self.inputs.get(name, {}))
        if pair is None:
            return [0.0] * channels, [1.0] * channels
        mode, low, high = pair
        deviation = high + EPSILON if mode == "MEAN_STD" else (high - low) / 2
        mean = low if mode == "MEAN_STD" else (high + low) / 2
        means, deviations = (values.expand(channels).tolist() for values in (mean, deviation))
        if min(deviations) <= 0:
            raise ValueError(f"the statistics of {name} have no width")
        return means, deviations


def _processor(folder: Path, name: str, modes: dict[str, str]) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Statistics by feature, and names of features in a robot's observation, of a processor's file; `modes` learn the
    ways that it says.
    """
    record = read_record(folder / name, REMEDY)
    statistics: dict[str, dict[str, Tensor]] = {}
    entries: dict[str, str] = {}
    for step in record.get("steps") or []:
        kind = str(step.get("registry_name"))
        settings = step.get("config") or {}
        if kind not in PLAIN_STEPS | NORMALIZERS:
            raise ValueError(f"{name} has a step '{kind}', which ours do not take")
        entries |= {str(new): str(old) for old, new in (settings.get("rename_map") or {}).items()}
        if kind not in NORMALIZERS:
            continue
        modes |= {str(key): str(mode) for key, mode in (settings.get("norm_map") or {}).items()}
        file = folder / Path(str(step.get("state_file"))).name
        if step.get("state_file") and file.is_file():
            for key, tensor in TensorFile(file).read().items():
                feature, _, part = key.rpartition(".")
                statistics.setdefault(feature, {})[part] = tensor
    return statistics, entries
