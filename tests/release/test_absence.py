"""What is said where an optional package is missing: one sentence that names the right extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from policy_accel.extras import to_install

BROUGHT = {
    "pusht": ["gym_pusht"],
    "robosuite": ["robosuite"],
    "planning": ["gymnasium_robotics"],
    "lerobot": ["pyarrow", "av"],
    "wandb": ["wandb"],
    "diffusers": ["diffusers"],
    "ray": ["ray"],
    "slurm": ["submitit"],
    "report": ["plotly", "jinja2"],
    "tensorboard": ["tensorboard"],
    "fid": ["torch_fidelity"],
    "export": ["onnx", "onnxscript", "onnxruntime"],
    "serve": ["websockets", "msgpack"],
    "hub": ["huggingface_hub"],
}
"""Extra -> the modules that it brings."""
WITHOUT = """
import contextlib, io, json, sys, traceback
sys.path.insert(0, sys.argv[1])
from extras import CORE, FEATURES, telling
from policy_accel.cli import main

def said(command):
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(command[2:]) if command[0] == "-m" else exec(command[1], {})
        except SystemExit as exit:
            status = exit.code
        except Exception:
            status = traceback.print_exc()
    return status, heard.getvalue()

assert said(CORE[0])[0] == 0
print(json.dumps({name: said(telling(name)) for name in FEATURES if name != "robomimic"}))
"""


def test_every_extra_is_tried(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) - {"all", "dev", "docs"} == {*BROUGHT, "robomimic"}


def test_without_any_extra_every_feature_says_how_to_get_it(repository: Path, tmp_path: Path) -> None:
    """The commands are those of benchmarks/extras.py, which installs every extra and sees them work."""
    modules = [module for names in BROUGHT.values() for module in names]
    (site := tmp_path / "site").mkdir()
    # Read by every Python at its start, workers included. None: such an import fails, and find_spec finds nothing.
    (site / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({modules})\n")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(repository / "benchmarks")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(BROUGHT)
    for extra, (status, said) in found.items():
        assert to_install(extra) in said, (extra, said)
        if "Traceback" not in said:  # of a command, and not of a line of Python
            assert status == 2, extra
            assert len(said.strip().splitlines()) <= 3, said
