"""The optional parts of policy_accel: what each is for, and which of its packages are not here.

Names and versions are those of the installed package's metadata, so that they have one home, pyproject.toml.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from policy_accel.extras import DISTRIBUTION, packages_of

USES = {
    "pusht": "Push-T",
    "robosuite": "robot arms: lift, can, square, transport, tool_hang",
    "planning": "mazes, Fetch, Franka Kitchen, Adroit",
    "lerobot": "LeRobot data sets",
    "robomimic": "policies and environments of robomimic",
    "diffusers": "autoencoders, export to diffusers",
    "export": "ONNX",
    "fid": "the FID of torch-fidelity",
    "hub": "sharing on the Hugging Face hub",
    "ray": "launcher=ray",
    "report": "HTML reports",
    "serve": "policies served to robots",
    "slurm": "launcher=slurm",
    "tensorboard": "training.logging.tensorboard",
    "wandb": "training.logging.wandb",
}
"""Extra -> what it is for."""


def requirements(extra: str = "") -> list[Requirement]:
    """What policy_accel needs, or what an extra needs beside that."""
    if extra:
        return [Requirement(package) for package in packages_of(extra)]
    wanted = map(Requirement, requires(DISTRIBUTION) or ())
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def lacking(wanted: list[Requirement]) -> list[str]:
    """Which of the requirements are not met, and why."""
    found = []
    for one in wanted:
        try:
            here = version(one.name)
        except PackageNotFoundError:
            found.append(f"{one.name} is not installed")
            continue
        if not one.specifier.contains(here, prereleases=True):
            found.append(f"{one.name} is {here}, and {one.specifier} is needed")
    return found


def versions(wanted: list[Requirement]) -> str:
    """The requirements that are here, with their versions: "gym-pusht 0.1.6, pymunk 6.11.1"."""
    return ", ".join(f"{one.name} {version(one.name)}" for one in wanted)
