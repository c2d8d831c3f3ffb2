"""Everything that `policy-accel doctor` looks at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from policy_accel.doctor.examine import Probe, examine
from policy_accel.doctor.extras import USES, lacking, requirements, versions
from policy_accel.doctor.findings import BROKEN, CORE, MISSING, NOTE, OK, Finding
from policy_accel.doctor.host import host
from policy_accel.doctor.probes import SIMULATORS
from policy_accel.envs.rendering import PACKAGES
from policy_accel.extras import to_install

BACKENDS = ("egl", "osmesa")
REINSTALL = "install policy_accel again: pip install -e . in its folder"


def of_machine() -> list[Finding]:
    """The machine, what policy_accel needs, and each of its optional parts."""
    complete = {extra: not lacking(requirements(extra)) for extra in USES}
    core = lacking(requirements())
    probes = [Probe(CORE, "torch", ("torch",), remedy="install torch again")]
    plain = {"NUMBA_DISABLE_JIT": "1"}  # robosuite compiles for half a minute when it is first used
    probes += [Probe("Simulators", name, ("simulator", name), plain) for name in SIMULATORS if complete[name]]
    if find_spec("mujoco") is not None:
        probes += [Probe("Rendering", name, ("rendering", name), {"MUJOCO_GL": name}) for name in _backends()]
    probes += [Probe("Codecs", "mp4", ("ffmpeg",)), Probe("Codecs", "jpeg", ("jpeg",))]
    probes += [Probe("Codecs", "lerobot", ("lerobot",))] if complete["lerobot"] else []
    found = [
        *host(),
        *([Finding(CORE, "packages", BROKEN, "; ".join(core), REINSTALL)] if core else [_core()]),
        *_tolerant(examine(probes)),
    ]
    return _in_order([*found, *_extras({one.name for one in found})])


def of_settings(overrides: Sequence[str], config_dir: Path | None) -> list[Finding]:
    """What `policy-accel train` with these settings lacks here."""
    words = ("task", json.dumps(list(overrides)), str(config_dir or ""))
    return examine([Probe("Task", "settings", words)])


def _core() -> Finding:
    return Finding(CORE, "packages", OK, f"all {len(requirements())} that policy_accel needs")


def _backends() -> list[str]:
    own = os.environ.get("MUJOCO_GL", "")
    return [own] if own else list(BACKENDS)


def _tolerant(found: list[Finding]) -> list[Finding]:
    """One way to draw is enough."""
    drawn = [one.name for one in found if one.group == "Rendering" and not one.bad]
    return [
        one
        if one.group != "Rendering" or not one.bad
        else replace(one, state=NOTE, said=f"not here, and {drawn[0]} draws", remedy="")
        if drawn
        else replace(one, remedy=f"on Debian or Ubuntu: apt-get install {PACKAGES}")
        for one in found
    ]


def _extras(seen: set[str]) -> Iterator[Finding]:
    """Extras by their packages; those of which a part was tried are only listed when something is missing."""
    for extra, use in USES.items():
        wanted = requirements(extra)
        group = "Simulators" if extra in SIMULATORS else "Optional"
        if absent := lacking(wanted):
            yield Finding(group, extra, MISSING, f"{use}: {'; '.join(absent)}", to_install(extra))
        elif extra not in seen:
            yield Finding(group, extra, OK, f"{use}: {versions(wanted)}")


def _in_order(found: list[Finding]) -> list[Finding]:
    groups = list(dict.fromkeys(["Machine", CORE, "Simulators", *(one.group for one in found)]))
    return sorted(found, key=lambda one: groups.index(one.group))
