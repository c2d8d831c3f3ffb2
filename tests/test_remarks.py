"""What a warning of ours looks like where the package is imported."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import warnings
import policy_accel
warnings.warn_explicit("x.npz: a.", UserWarning, policy_accel.__file__, 3)
warnings.warn_explicit("an API of ours is old", FutureWarning, policy_accel.__file__, 3)
warnings.warn_explicit("b", UserWarning, "/a/policy_accel/.venv/b.py", 3)
"""


def test_a_warning_of_ours_is_a_sentence_and_others_stay_as_they_are() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stderr
    ours, old, theirs = (line for line in said.splitlines() if not line.startswith(" "))
    assert ours == "remark: x.npz: a."
    assert "FutureWarning: an API" in old
    assert theirs == "/a/policy_accel/.venv/b.py:3: UserWarning: b"
