"""Where the files are that ship with the package: the repository's folder `datasets`."""

from __future__ import annotations

from pathlib import Path

from policy_accel.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "datasets", _PACKAGE.parent / "datasets")  # in a wheel, in an editable install


def shipped_path(*parts: str) -> Path:
    """A file or folder below `datasets`, as `shipped_path("manifest", "pusht.json")`; UserError where it is missing."""
    for root in _ROOTS:
        if (path := root.joinpath(*parts)).exists():
            return path
    what = f"is missing from this installation (looked in {' and '.join(map(str, _ROOTS))})"
    raise UserError(f"datasets/{'/'.join(parts)} {what}; install the package again or check it out completely.")
