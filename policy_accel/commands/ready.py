"""The command that is meant for given data, or for a model that is no data, ready to be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from policy_accel.data.formats.base import EpisodeReader
from policy_accel.data.formats.recognise import FLAGS
from policy_accel.data.images import ImageSet
from policy_accel.data.inspect import Inspection
from policy_accel.data_names import data_name
from policy_accel.foreign.kinds import BY_SUFFIX, library_of
from policy_accel.run_files import CONFIG, STATE, weights_file

_SHORTEST = 8
"""Steps that a window needs by default: a horizon of 16, less 1 step that is repeated before and 7 behind."""
_FITS_ALL = ["policy.horizon=8", "policy.n_action_steps=7"]
"""With these an episode of any length gives windows."""

EXPORTED = (".onnx", ".pt2", ".safetensors")
_SCORED = {"samples": 2000, "curve_samples": 256}
"""Images that the default recipe measures, for which there must be as many to train on."""
_RECORDED = ("reward", "done", "terminated", "truncated", "success", "sim_state", "timestamp", "index", *FLAGS)
"""What recordings hold beside observations and actions; also as the end of a key, as episode_index."""


def usual_fields(reader: EpisodeReader) -> tuple[list[str], list[str], str | None]:
    """Keys that a policy may see, pictures, and the key of its actions, by their names; None where none is called so.

    `state` is the whole observation where there is one; what lies outside of a file's observations (`extra.`) is taken
    where it has none.
    """
    actions = [key for key in reader.features if key.startswith("action")]
    images = [key for key, feature in reader.features.items() if feature.is_image and not key.startswith("next_")]
    numbers = [
        key
        for key, feature in reader.features.items()
        if len(feature.shape) < 3 and not key.startswith(("action", "next")) and not key.endswith(_RECORDED)
    ]
    if not all(key.startswith("extra.") for key in (*images, *numbers)):
        images, numbers = ([key for key in keys if not key.startswith("extra.")] for keys in (images, numbers))
    return ["state"] if "state" in numbers else numbers, images, min(actions, key=len, default=None)


def ready_to_train(path: str, reader: EpisodeReader, found: Inspection, layout: Path | None) -> str:
    """The command for demonstrations, or how to complete it where no key is called action; "" where there is none."""
    observation, images, action = usual_fields(reader)
    if not (observation or images) or len(reader.faults) == len(reader.episode_ends):
        return ""
    pictures = [f"task.images={_listed(images)}", "recipe=small_image"]
    settings = ["task=custom", f"task.data={path}"]
    if layout is not None:
        settings.append(f"task.layout={layout}")
    settings.append(f"task.observation={_listed(observation)}")
    if images and not observation:
        settings += pictures
    settings.append(f"task.action={action or 'KEY'}")
    lengths = np.diff(reader.episode_ends, prepend=0)
    if lengths.max() < _SHORTEST:
        settings += _FITS_ALL
    if set(found.problems) - set(reader.damaged.values()):  # a damaged key is none of the observation
        settings.append("task.skip_bad_episodes=true")
    lines = [_command([*settings, _run_dir(path)])]
    if images and observation:
        lines.append(f"  with the cameras: add {shlex.join(pictures)}")
    if action is None:
        lines.append("  no key is called action: put that of what the policy is to predict in place of KEY")
    return "\n".join(lines)


def ready_for_images(path: str, images: ImageSet, resolution: int | None) -> str:
    """The command for an image set, of which these are the training images; with classes so that guidance works."""
    settings = ["task=custom_images", f"task.data={path}"]
    settings += [f"task.resolution={resolution}"] if resolution is not None else []
    settings += ["task.conditional=true", "task.label_dropout=0.1"] if images.labels is not None else []
    settings += ["task.augmentation=none"] if images.latents else []
    settings += ["task.skip_bad_images=true"] if images.skipped else []
    train = len(images) * 4 // 5  # there are as many at least when some are held out
    settings += [f"evaluation.{name}={train}" for name, count in _SCORED.items() if train < count]
    return _command([*settings, _run_dir(path)])


def use_of_model(place: Path) -> str:
    """What a run, or a model of ours or of another library, is, and which command looks at it; "" for anything else."""
    look = shlex.join(["policy-accel", "evaluate", str(place)])
    if (place / CONFIG).is_file() and ((place / "checkpoints").is_dir() or (place / STATE).is_file()):
        return (
            f"a training run, no data; `{look}` scores it, and `policy-accel report {shlex.quote(str(place))}` shows it"
        )
    weights = weights_file(place)
    known = weights.is_file() and weights.suffix not in BY_SUFFIX  # .pkl and .pt may be anything
    if known and (library := library_of(weights)):
        return f"a model of {library}, no data; `{look}` scores it"
    if weights != place or (place.suffix in EXPORTED and place.is_file()):
        return f"a trained policy or image model, no data; `{look}` scores it"
    return ""


def _run_dir(path: str) -> str:
    """A run directory of its own for these data."""
    return f"run_dir=runs/{data_name(path) or 'mine'}"


def _listed(keys: list[str]) -> str:
    """A list as settings have it; quotes keep a comma or a bracket inside of a name."""
    return f"[{','.join(key if not set(key) & set(',[]{}()' + chr(39) + chr(34)) else repr(key) for key in keys)}]"


def _command(settings: list[str]) -> str:
    return f"policy-accel train {shlex.join(settings)}"
