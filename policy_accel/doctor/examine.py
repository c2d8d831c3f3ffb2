"""Running the probes, side by side, each in a process of its own that may crash or hang without harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field, replace

from policy_accel.doctor.findings import BROKEN, Finding
from policy_accel.progress import Progress

SECONDS = 120.0
"""A probe that takes longer is given up; the slowest take about five on a quiet core."""


@dataclass(frozen=True)
class Probe:
    """A probe, and what its finding is called when it crashes before it says anything.

    Attributes:
        group: heading of the finding.
        name: of the finding.
        words: name and arguments of the probe.
        environment: variables that its process has beside ours.
        remedy: what may help when it fails.
    """

    group: str
    name: str
    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    remedy: str = ""


def examine(probes: Sequence[Probe], seconds: float = SECONDS) -> list[Finding]:
    """What the probes found, in their order.

    Args:
        probes: to run.
        seconds: after which one is given up.
    """
    with closing(Progress("check", len(probes), unit="part")) as progress:
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
            running = [pool.submit(run, probe, seconds) for probe in probes]
            for _ in as_completed(running):
                progress.advance()
        return [finding for done in running for finding in done.result()]


def run(probe: Probe, seconds: float = SECONDS) -> list[Finding]:
    """What one probe found; its crash is a finding too."""
    command = [sys.executable, "-P", "-m", "policy_accel.doctor.probes", *probe.words]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **probe.environment},
        start_new_session=True,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        ended = f"its process ended by {signal.Signals(-process.returncode).name}" if process.returncode < 0 else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        ended = f"it took longer than {seconds:.0f} s and was given up"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    blank = Finding(probe.group, probe.name, BROKEN, "it said nothing")
    found = [replace(blank, **json.loads(line)) for line in output.splitlines() if line.startswith("{")]
    if ended or not found:
        found.append(replace(blank, said=ended or blank.said))
    return [replace(one, remedy=one.remedy or probe.remedy) if one.bad else one for one in found]
