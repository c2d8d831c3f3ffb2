"""Models in the form of the Hugging Face hub: a folder with weights, what they are, and a model card."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError, one_line
from policy_accel.extras import to_install
from policy_accel.files import explained, new_path
from policy_accel.run_files import CONFIG, SHARED, WEIGHTS

CARD = "README.md"
NEEDED = ["*.json", "*.safetensors"]
"""What is downloaded of a model."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def write_model(folder: Path, content: bytes, config: Mapping[str, Any], card: str) -> None:
    """Write model.safetensors, config.json and README.md.

    Args:
        folder: new, or without such files.
        content: of the file of weights.
        config: JSON-able.
        card: of the model.

    Raises:
        UserError: one of the files is there already, or the folder is a run directory; the disk is full.
    """
    if (folder / CONFIG).is_file():
        raise UserError(f"{folder} is a run directory; choose another folder for the model.")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        weights, about, readme = (files.enter_context(new_path(folder / file)) for file in (WEIGHTS, SHARED, CARD))
        weights.write_bytes(content)
        about.write_text(json.dumps({"library_name": "policy_accel", **config}, indent=1) + "\n")
        readme.write_text(card)


def push_model(
    save: Callable[[Path, str], object],
    repo: str,
    message: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Put a model into a repository of the hub, which is made if it is not there; returns the address of the commit.

    Args:
        save: writes the model to a folder, with the name of the repository in its card.
        repo: OWNER/NAME, or NAME for the user's own.
        message: of the commit.
        private: whether a new repository is; None for the owner's default.
        token: of the hub; None for that of `hf auth login` or the variable HF_TOKEN.
        revision: branch; None for main.

    Raises:
        UserError: huggingface_hub is not installed; no such name; no permission, no connection.
    """
    if not NAME.fullmatch(repo):
        raise UserError(f"'{repo}' is no name of a repository of the hub; give OWNER/NAME.")
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        try:
            api = hub.HfApi(token=token, library_name="policy_accel")
            repo_id = api.create_repo(repo_id=repo, private=private, exist_ok=True).repo_id
            save(folder, repo_id)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message)
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
        raise UserError(f"The hub needs huggingface_hub, which is not here; {to_install('hub')}") from error
    return huggingface_hub
