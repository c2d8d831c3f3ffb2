"""What an exported policy says of itself, inside the file and as JSON beside it. Reading it takes no torch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import explained, open_regular
from policy_accel.parsing import from_json
from policy_accel.robot.exporting.session import onnx_session

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
"""Form of an export -> how its file ends."""
KEY = "policy_accel"
PT2_ENTRY = "policy.json"
LARGEST_HEADER = 2**27


def exported_form(path: Path) -> str:
    """The form of an exported file, by how its name ends.

    Raises:
        UserError: it ends otherwise.
    """
    for form, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return form
    raise UserError(
        f"{path} is no exported policy, whose file ends in {', '.join(SUFFIXES.values())}; give a run_dir, a folder of "
        "its checkpoints, or a file that `policy-accel export` wrote."
    )


def read_about(path: Path) -> dict[str, Any]:
    """What an exported file says of its policy, see `policy_accel.robot.exporting.description.about_of`.

    Raises:
        UserError: it cannot be read, is damaged, or is not from `policy-accel export`.
    """
    form = exported_form(path)
    open_regular(path).close()
    try:
        found = {"onnx": _of_onnx, "torch": _of_pt2, "safetensors": _of_safetensors}[form](path)
        about = from_json(found)
        if not isinstance(about["policy"]["config"], dict):
            raise TypeError("no configuration")
    except UserError:
        raise
    except OSError as error:
        with explained(path, "read"):
            raise error from None
    except Exception as error:  # each library has errors of its own for a damaged file
        raise UserError(
            f"{path} cannot be read as an exported policy ({type(error).__name__}); it is damaged, or `policy-accel "
            "export` did not write it."
        ) from error
    return dict(about)


def _of_onnx(path: Path) -> str:
    found: str = onnx_session(path).get_modelmeta().custom_metadata_map[KEY]
    return found


def _of_pt2(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(f"/extra/{PT2_ENTRY}"))
        return archive.read(name).decode()


def _of_safetensors(path: Path) -> str:
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError("a header of another kind")
        header = from_json(file.read(size).decode())
    found: str = header["__metadata__"][KEY]
    return found
