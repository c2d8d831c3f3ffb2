"""`policy-accel doctor`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib.metadata import version

from policy_accel.commands.output import suggest
from policy_accel.doctor.findings import CORE, page
from policy_accel.doctor.whole import of_machine, of_settings

LACKS = 2


def run_doctor(options: argparse.Namespace) -> int:
    """Print what this machine has and lacks; of settings, what they lack.

    Returns 2 when policy_accel itself cannot run, or what the settings name lacks something; else 0.
    """
    asked = options.overrides
    found = of_settings(asked, options.config_dir) if asked else of_machine()
    lacks = any(one.bad for one in found if asked or one.group == CORE)
    if options.json:
        record = {
            "policy_accel": version("policy-accel"),
            "ready": not lacks,
            "findings": [asdict(one) for one in found],
        }
        print(json.dumps(record))
    else:
        print(page(found))
    if not lacks:
        folder = [] if options.config_dir is None else ["--config-dir", options.config_dir]
        suggest("begin", ["train", *asked, *folder] if asked else ["demo"], quiet=options.json)
    return LACKS if lacks else 0
