from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from policy_accel.envs import rendering
from policy_accel.errors import UserError


def test_the_users_choice_is_kept(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert rendering.set_up_rendering() == "glfw"


def test_a_choice_is_made_with_which_mujoco_draws():
    program = (
        "import os; os.environ.pop('MUJOCO_GL', None)\n"
        "from policy_accel.envs.rendering import set_up_rendering\n"
        "backend = set_up_rendering()\n"
        "assert os.environ['MUJOCO_GL'] == backend, backend\n"
        "import mujoco\n"
        'box = \'<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size="1"/></worldbody></mujoco>\'\n'
        "model = mujoco.MjModel.from_xml_string(box)\n"
        "data = mujoco.MjData(model)\n"
        "mujoco.mj_forward(model, data)\n"
        "with mujoco.Renderer(model, 32, 32) as renderer:\n"
        "    renderer.update_scene(data)\n"
        "    assert renderer.render().std() > 1\n"
        "print(backend)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in rendering.LIBRARIES


@pytest.mark.parametrize(("installed", "expected"), [("EGL", "egl"), ("OSMesa", "osmesa")])
def test_the_installed_library_decides(monkeypatch, installed, expected):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("MUJOCO_GL_TEST", "")  # so that monkeypatch restores the environment
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _load(name, installed))
    try:
        assert rendering.set_up_rendering() == expected
    finally:
        monkeypatch.delenv("MUJOCO_GL", raising=False)


def test_without_a_library_the_packages_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _load(name, "nothing"))
    with pytest.raises(UserError, match=r"apt-get install .*libegl1.*libosmesa6"):
        rendering.set_up_rendering()


def test_a_failure_to_draw_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with (
        pytest.raises(UserError, match=r"camera front cannot be drawn with MUJOCO_GL=osmesa \(no context\); set"),
        rendering.opengl_errors("camera front cannot be drawn"),
    ):
        raise RuntimeError("no\n context")
    with pytest.raises(UserError, match=r"^mine$"), rendering.opengl_errors("camera front cannot be drawn"):
        raise UserError("mine")


def _load(name: str, installed: str) -> None:
    if installed not in name:
        raise OSError(name)


@pytest.mark.parametrize("module", ["robosuite_env:Robosuite", "mazes:PointMaze"])
def test_an_import_that_fails_for_opengl_is_one_sentence(module: str) -> None:
    name, class_name = module.split(":")
    code = (
        "from policy_accel.errors import UserError\n"
        "try:\n"
        f"    from policy_accel.envs.{name} import {class_name}\n"
        f"    {class_name}()\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "MUJOCO_GL": "nothing"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "MuJoCo cannot be imported with MUJOCO_GL=nothing" in done.stdout
    assert "apt-get install" in done.stdout
    assert len(done.stdout.splitlines()) == 1
