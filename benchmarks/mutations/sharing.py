"""Mutations of policy_accel/sharing."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "sharing/provenance.py",
        "robot/test_hub.py",
        ('if "control" not in row', "if True"),
        ('row.get("step") == step and', "True and"),
        ("* run.sampler.objective.repetition.repeats", "* 2"),
    ),
    *of(
        "sharing/hub.py",
        "robot/test_hub.py",
        ("if (folder / CONFIG).is_file():", "if False:"),
        ("revision=revision, token=token, allow_patterns", "token=token, allow_patterns"),
    ),
]
