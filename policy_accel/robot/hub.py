"""Policies in the form of the Hugging Face hub: a folder with weights, what they are, and a model card."""

from __future__ import annotations

from pathlib import Path

from policy_accel.errors import UserError
from policy_accel.policy.demonstrations import observation_layout
from policy_accel.policy.run import LoadedRun
from policy_accel.robot.exporting.export import as_safetensors, public
from policy_accel.robot.model_card import model_card
from policy_accel.robot.provenance import policy_provenance
from policy_accel.sharing.hub import push_model, write_model


def save_pretrained(run: LoadedRun, folder: Path, *, name: str | None = None, data_licence: str | None = None) -> None:
    """Write a policy to a folder, from which `Policy.from_pretrained` loads it: model.safetensors, config.json and the
    model card README.md.

    Args:
        run: as it is sampled.
        folder: new, or without such files.
        name: by which the card says it is loaded; None for the folder.
        data_licence: of the demonstrations, where it is known better than from them.

    Raises:
        UserError: one of the files is there already; an exported file whose weights are a program; the disk is full.
    """
    if run.policy.fixed:
        raise UserError(
            f"{run.source} has its network as a program, without weights to share; load the run that it was made of."
        )
    provenance = policy_provenance(run)
    if data_licence is not None:
        provenance["data_licence"] = data_licence
    content, about = as_safetensors(run, provenance=provenance)
    write_model(folder, content, public(about), model_card(about, name or folder.resolve().name, _observation(run)))


def push_to_hub(
    run: LoadedRun,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
    data_licence: str | None = None,
) -> str:
    """Put a policy into a repository of the hub, which is made if it is not there; returns the address of the commit.

    Args:
        run: as it is sampled.
        repo: OWNER/NAME, or NAME for the user's own.
        private, token, revision: see `push_model`.
        message: of the commit.
        data_licence: see `save_pretrained`.

    Raises:
        UserError: huggingface_hub is not installed; no such name; no permission, no connection.
    """

    def save(folder: Path, name: str) -> None:
        save_pretrained(run, folder, name=name, data_licence=data_licence)

    return push_model(
        save,
        repo,
        message or f"Policy of {run.step:,} updates",
        private=private,
        token=token,
        revision=revision,
    )


def _observation(run: LoadedRun) -> str:
    """What `act` takes, in words."""
    policy, layout = run.policy, observation_layout(run.config.task)
    entries = ", ".join(layout.entries)
    if not policy.images:
        return f"{policy.input_dim} numbers: an array, or a dictionary with {entries}"
    pictures = [f"{layout.entry(name)[0]} uint8 {list(shape)}" for name, shape in policy.images.items()]
    return f"a dictionary with {entries}: {policy.input_dim} numbers, and pictures {', '.join(pictures)}"
