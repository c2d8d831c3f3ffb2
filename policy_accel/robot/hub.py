"""Policies in the form of the Hugging Face hub: a folder with weights, what they are, and a model card."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError, one_line
from policy_accel.files import explained, new_path
from policy_accel.policy.demonstrations import observation_layout
from policy_accel.policy.run import LoadedRun
from policy_accel.robot.exporting.export import as_safetensors, public
from policy_accel.robot.model_card import model_card
from policy_accel.robot.provenance import provenance_of
from policy_accel.run_files import CONFIG, SHARED, WEIGHTS

CARD = "README.md"
NEEDED = ["*.json", "*.safetensors"]
"""What is downloaded of a policy."""
TO_INSTALL = "install it with: pip install 'policy-accel[hub]'"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


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
    if (folder / CONFIG).is_file():
        raise UserError(f"{folder} is a run directory; choose another folder for the policy.")
    provenance = provenance_of(run)
    if data_licence is not None:
        provenance["data_licence"] = data_licence
    content, about = as_safetensors(run, provenance=provenance)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        weights, config, card = (files.enter_context(new_path(folder / file)) for file in (WEIGHTS, SHARED, CARD))
        weights.write_bytes(content)
        config.write_text(json.dumps({"library_name": "policy_accel", **public(about)}, indent=1) + "\n")
        card.write_text(model_card(about, name or folder.resolve().name, _observation(run)))


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
        private: whether a new repository is; None for the owner's default.
        token: of the hub; None for that of `hf auth login` or the variable HF_TOKEN.
        revision: branch; None for main.
        message: of the commit.
        data_licence: see `save_pretrained`.

    Raises:
        UserError: huggingface_hub is not installed; no such name; no permission, no connection.
    """
    if not NAME.fullmatch(repo):
        raise UserError(f"'{repo}' is no name of a repository of the hub; give OWNER/NAME.")
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "policy"
        try:
            api = hub.HfApi(token=token, library_name="policy_accel")
            repo_id = api.create_repo(repo_id=repo, private=private, exist_ok=True).repo_id
            save_pretrained(run, folder, name=repo_id, data_licence=data_licence)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=message or f"Policy of {run.step:,} updates",
            )
        except UserError:
            raise
        except Exception as error:  # of the hub and of whatever it connects by
            raise UserError(
                f"{repo} cannot be written on the hub ({one_line(error)[:300]}); check the name, the network, and the "
                "token (hf auth login)."
            ) from error
    return str(getattr(commit, "commit_url", commit))


def local_copy(source: Path | str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The folder or file `source`, or where a repository of the hub by that name was downloaded to.

    Raises:
        UserError: there is neither; huggingface_hub is not installed; no connection.
    """
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise UserError(f"revision={revision} is of a repository of the hub, and {source} is here; leave it out.")
        return path
    name = str(source)
    if not NAME.fullmatch(name):
        raise UserError(f"{name} does not exist, and is no name of a repository of the hub (OWNER/NAME); check it.")
    hub = _hub()
    try:
        found = hub.snapshot_download(
            name, revision=revision, token=token, allow_patterns=NEEDED, library_name="policy_accel"
        )
    except Exception as error:  # of the hub and of whatever it connects by
        raise UserError(
            f"{name} is no folder here, and cannot be downloaded from the hub ({one_line(error)[:300]}); check the "
            "name, the network, and the token (hf auth login)."
        ) from error
    return Path(found)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"The hub needs huggingface_hub, which is not here; {TO_INSTALL}") from error
    return huggingface_hub


def _observation(run: LoadedRun) -> str:
    """What `act` takes, in words."""
    policy, layout = run.policy, observation_layout(run.config.task)
    entries = ", ".join(layout.entries)
    if not policy.images:
        return f"{policy.input_dim} numbers: an array, or a dictionary with {entries}"
    pictures = [f"{layout.entry(name)[0]} uint8 {list(shape)}" for name, shape in policy.images.items()]
    return f"a dictionary with {entries}: {policy.input_dim} numbers, and pictures {', '.join(pictures)}"
