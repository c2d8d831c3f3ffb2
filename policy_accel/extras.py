"""What to type for the optional packages: our own name is on no package index yet, those of others are."""

from __future__ import annotations

from pathlib import Path

DISTRIBUTION = "policy-accel"


def to_install(extra: str, folder: Path | None = None) -> str:
    """How an extra of pyproject.toml is installed, as the end of a sentence without its full stop.

    In a checkout "install it with: pip install -e '.[pusht]' in /home/me/policy_accel". An installed wheel has no such
    folder, so the packages of the extra are listed: "install it with: pip install 'gym-pusht<0.2,>=0.1.6' ...".

    Args:
        extra: as "pusht".
        folder: of the package; None for where this file is.
    """
    folder = folder or Path(__file__).parent
    if not (folder / "envs").is_dir():  # a wheel has envs inside of the package, a checkout beside it
        return f"install it with: pip install -e '.[{extra}]' in {folder.parent}"
    packages = " ".join(f"'{package}'" for package in packages_of(extra))
    return f"install it with: pip install {packages}"


def packages_of(extra: str) -> list[str]:
    """The requirements that an extra adds on this machine, as ["plotly>=6", "jinja2>=3.1"]; those of an extra that it
    names stand in its place. Empty for an unknown one."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    found: dict[str, None] = {}
    for requirement in map(Requirement, requires(DISTRIBUTION) or ()):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:
            found |= dict.fromkeys(package for inner in sorted(requirement.extras) for package in packages_of(inner))
        else:
            requirement.marker = None
            found[str(requirement)] = None
    return list(found)
