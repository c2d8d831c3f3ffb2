from __future__ import annotations

from importlib.metadata import metadata

import pytest
from packaging.requirements import Requirement

from policy_accel.doctor.extras import USES, lacking, requirements, versions

NOT_FOR_USERS = {"all", "dev", "docs"}


def test_every_extra_has_its_use() -> None:
    assert set(USES) == set(metadata("policy-accel").get_all("Provides-Extra") or ()) - NOT_FOR_USERS


def test_an_extra_needs_its_own_packages_and_those_of_the_extras_that_it_names() -> None:
    assert [one.name for one in requirements("slurm")] == ["submitit"]
    assert {"robosuite", "mujoco", "robomimic"} <= {one.name for one in requirements("robomimic")}


def test_what_everyone_needs_is_of_no_extra() -> None:
    names = [one.name for one in requirements()]
    assert {"torch", "numpy", "packaging"} <= set(names)
    assert "submitit" not in names


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("numpy>=2.0", []),
        ("numpy<1", ["numpy is {}, and <1 is needed"]),
        ("no-such-package>=2", ["no-such-package is not installed"]),
    ],
)
def test_lacking_packages_are_named_with_the_version_that_is_here(wanted: str, said: list[str]) -> None:
    here = versions([Requirement("numpy")]).removeprefix("numpy ")
    assert lacking([Requirement(wanted)]) == [line.format(here) for line in said]
