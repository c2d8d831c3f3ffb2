"""Where the files are that ship with the package: the repository's folder `datasets`."""

from __future__ import annotations

from pathlib import Path

from policy_accel.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "datasets", _PACKAGE.parent / "datasets")  # in a wheel, in an editable install


def shipped_path(*parts: str) -> Path:
    """The path of a file or folder below `datasets`, as `shipped_path("manifest", "pusht.json")`.

    Raises:
        UserError: it does not exist in this installation.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise UserError(
        f"datasets/{'/'.join(parts)} is missing from this installation (looked in {' and '.join(map(str, _ROOTS))}); "
        "install the package again or check the repository out completely."
    )
