from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path


def test_every_package_is_listed(repository: Path) -> None:
    tool = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    inside = {
        ".".join(init.parent.relative_to(repository).parts)
        for init in (repository / "policy_accel").rglob("__init__.py")
    }
    assert set(tool["packages"]) == inside | set(tool["package-dir"])
    assert tool["package-dir"] == {f"policy_accel.{name}": name for name in ("envs", "configs", "datasets")}
    assert not (repository / "datasets" / "__init__.py").exists()


def test_files_that_are_no_modules_are_shipped(repository: Path) -> None:
    """The styles and scripts of the report, and whatever else lies among the modules."""
    tool = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = {
        path
        for package, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in (repository / package.replace(".", "/")).glob(pattern)
    }
    package = repository / "policy_accel"
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".md")}
    assert len(others) > 4
    assert others <= shipped


def test_folders_of_the_user_do_no_harm(tmp_path: Path) -> None:
    for name in ("envs", "datasets", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    code = (
        "import envs, datasets, configs, policy_accel.envs\n"
        "from policy_accel.data import shipped_path\n"
        "from policy_accel.policy.track import ROBOT\n"
        "assert envs.mine and datasets.mine and configs.mine\n"
        "assert ROBOT.config([]).model.name == 'unet'\n"
        "assert shipped_path('manifest', 'pusht.json').is_file()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr


def test_our_folders_are_no_top_level_names(tmp_path: Path, repository: Path) -> None:
    code = (
        "import importlib.util, policy_accel.envs\n"
        "specs = {name: importlib.util.find_spec(name) for name in ('envs', 'configs', 'benchmarks', 'tests')}\n"
        "found = {name: str(spec.submodule_search_locations or spec.origin) for name, spec in specs.items() if spec}\n"
        # Another package may install such a name (torch-fidelity has its tests at the top); ours must not be it.
        f"ours = [name for name, place in found.items() if {str(repository / 'x')[:-1]!r} in place\n"
        "        and 'site-packages' not in place]\n"
        "assert not ours, ours"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr


def test_the_core_needs_no_simulator_and_no_wandb() -> None:
    code = (
        "import sys\n"
        "import policy_accel.training, policy_accel.diffusion, policy_accel.models, policy_accel.data\n"
        "heavy = {'gymnasium', 'gym_pusht', 'pygame', 'wandb', 'zarr', 'hydra', 'diffusers', 'matplotlib'}\n"
        "heavy |= {'h5py', 'pyarrow', 'av', 'minari', 'mujoco', 'robosuite', 'robomimic', 'gymnasium_robotics'}\n"
        "bad = heavy & set(sys.modules)\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
