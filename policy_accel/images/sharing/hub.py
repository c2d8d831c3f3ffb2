"""Image models in the form of the Hugging Face hub: a folder with weights, what they are, and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from policy_accel.errors import UserError, one_line
from policy_accel.images.config import ImageConfig
from policy_accel.images.latents.representation import Representation, encoding_in
from policy_accel.images.run import LoadedImageRun, build_model, build_sampler, represented
from policy_accel.images.sharing.model_card import model_card
from policy_accel.images.task import condition_size
from policy_accel.images.track import IMAGES
from policy_accel.robot.exporting.about import KEY, read_about
from policy_accel.run_sampling import AskedSampling, sampling_record
from policy_accel.sharing.hub import push_model, write_model
from policy_accel.sharing.provenance import provenance_of

KEPT = ("measures", "images", "sampler", "network_evaluations", "guidance", "seed", "protocol")
"""What a card says of an evaluation."""


def save_pretrained(
    run: LoadedImageRun, folder: Path, *, name: str | None = None, data_licence: str | None = None
) -> dict[str, Any]:
    """Write an image model to a folder, from which it is loaded, drawn from, scored and fine-tuned like a run:
    model.safetensors, config.json and the model card README.md. Returns what config.json says.

    Args:
        run: as it is sampled.
        folder: new, or without such files.
        name: by which the card says it is loaded; None for the folder.
        data_licence: of the images, where it is known better than from them.

    Raises:
        UserError: one of the files is there already; the disk is full.
    """
    provenance = provenance_of(run, _kept)
    if data_licence is not None:
        provenance["data_licence"] = data_licence
    about = {
        "made_by": f"policy-accel {version('policy-accel')}",
        "task": run.config.task.name,
        "step": run.step,
        "shape": list(run.shape),
        "classes": list(run.classes),
        **sampling_record(run.sampler.config),
        "network_evaluations": run.sampler.network_evaluations(),
        "provenance": provenance,
    }
    inside = {"config": IMAGES.record(run.config), **run.representation.record()}
    content = safetensors.torch.save(
        {key: tensor.contiguous().cpu() for key, tensor in run.model.state_dict().items()},
        {KEY: json.dumps({**about, "policy": inside})},
    )
    write_model(folder, content, about, model_card(about, name or folder.resolve().name))
    return about


def push_to_hub(run: LoadedImageRun, repo: str, *, data_licence: str | None = None, **how: Any) -> str:
    """Put an image model into a repository of the hub; returns the address of the commit.

    Args:
        run: as it is sampled.
        repo: OWNER/NAME, or NAME for the user's own.
        data_licence: see `save_pretrained`.
        how: private, token, revision, see `push_model`.

    Raises:
        UserError: what `push_model` and `save_pretrained` raise.
    """

    def save(folder: Path, name: str) -> None:
        save_pretrained(run, folder, name=name, data_licence=data_licence)

    return push_model(save, repo, f"Image model of {run.step:,} updates", **how)


def load_shared(path: Path, config: ImageConfig, device: torch.device | str, asked: AskedSampling) -> LoadedImageRun:
    """The model whose weights `save_pretrained` wrote to `path`.

    Args:
        path: of the file.
        config: of its run, as the file has it.
        device: where the model goes.
        asked: how it is sampled.

    Raises:
        UserError: the file is damaged, or holds another model.
    """
    about = read_about(path)
    config.sampling, _ = asked.of_run(config.sampling)
    try:
        channels, height, width = map(int, about["shape"])
        shape, classes = (channels, height, width), tuple(map(str, about["classes"]))
        model = build_model(config, shape, len(classes))
        model.load_state_dict(safetensors.torch.load_file(path))
        encoding = encoding_in(about["policy"], str(path))
    except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} is damaged, or not whole ({one_line(error)[:200]}); save it again.") from error
    config.training.lay_out(model, device)
    model.eval().requires_grad_(False)
    pixels = Representation() if encoding is None else represented(config.task, encoding, channels, device)
    size = condition_size(config.task, len(classes))
    return LoadedImageRun(
        model, config, int(about["step"]), build_sampler(config), shape, classes, size, pixels, source=path
    )


def _kept(scored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scored[name] for name in KEPT if name in scored}
