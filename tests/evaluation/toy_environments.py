"""Small deterministic environments for the tests of the rollouts, and ways for them to go wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np

from policy_accel.errors import UserError


def act(observations, seeds, chunk_index):
    """A policy that walks back to the origin, in chunks of 4 actions."""
    return -observations[:, -1:, 2:] + np.arange(4.0)[:, None] / 10


class Walk(gymnasium.Env):
    """A noisy walk of seeded length; `trouble[seed] = (kind, step, times)` makes it go wrong `times` times at `step`.

    Observation: seed, step and position (x, y), float64. Reward: exp(-distance to the origin).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(self, *, trouble=None, folder=None, is_success=True, as_dict=False, lasts=None, render_mode=None):
        self.trouble = trouble or {}
        self.folder = folder and Path(folder)
        self.is_success = is_success
        self.as_dict = as_dict
        self.lasts = lasts
        self.render_mode = render_mode
        box = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        image = gymnasium.spaces.Box(0, 255, (3, 5), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"state": box, "image": image}) if as_dict else box
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float64)
        self.buffer = np.zeros(4)
        self.broken = False
        if self.folder:
            (self.folder / f"pid-{os.getpid()}").touch()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        assert not self.broken, "an environment that raised is not to be used again"
        self.seed = seed
        self.time = 0
        self.position = self.np_random.normal(size=2)
        self.last = self.lasts or int(self.np_random.integers(3, 30))
        self.go_wrong()
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        self.position += 0.3 * np.asarray(action) + 0.1 * self.np_random.normal(size=2)
        self.go_wrong()
        reward = float(np.exp(-np.linalg.norm(self.position)))
        if self.trouble.get(self.seed, [""])[0] == "nan-reward":
            reward = float("nan")
        info = {"is_success": reward > 0.6} if self.is_success else {}
        return self.observe(), reward, self.time == self.last, False, info

    def observe(self):
        self.buffer[:] = [self.seed, self.time, *self.position]  # one buffer for all steps: a reader has to copy it
        if self.trouble.get(self.seed, [""])[0] == "nan-observation":
            self.buffer[3] = np.nan
        if self.as_dict:
            return {"state": self.buffer, "image": np.full((3, 5), self.time, np.uint8)}
        return self.buffer

    def render(self):
        frame = np.zeros((33, 47, 3), np.uint8)
        frame[:, :, 0] = 8 * self.time
        return frame

    def go_wrong(self):
        kind, step, times = self.trouble.get(self.seed, ("", 0, 0))
        if not kind or kind.startswith("nan") or step != self.time:
            return
        counter = self.folder / f"trouble-{self.seed}"
        with counter.open("a") as file:
            file.write("x")
        if counter.stat().st_size > times:
            return
        match kind:
            case "raise":
                self.broken = True
                raise RuntimeError("the table\nfell over")
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit-with-child":  # the child outlives the process and holds its connection
                child = os.fork()
                if child:
                    (self.folder / f"child-{child}").touch()
                    os._exit(3)
                time.sleep(60)
                os._exit(0)
            case "hang":
                time.sleep(3600)


class Inspect(gymnasium.Env):
    """Observes its process: torch imported, thread count, id of the process."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        return self.observe(), 0.0, False, False, {}

    def observe(self):
        return np.array(["torch" in sys.modules, int(os.environ["OMP_NUM_THREADS"]), os.getpid()], np.float64)


class Blind(Inspect):
    def __init__(self, render_mode=None):
        self.render_mode = render_mode


class Odd(Inspect):
    metadata = {"render_fps": 3}  # noqa: RUF012


class Unasked(Inspect):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def render(self):
        raise OSError("no display")


class Undrawn(Blind):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012


class Drawn(gymnasium.Wrapper):
    def __init__(self, render_mode=None):
        super().__init__(Undrawn(render_mode))

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


class Broken(Undrawn):
    render = Unasked.render


class Filmed(Walk):
    """Its frames are red from the camera front and blue from the camera side."""

    def __init__(self, render_camera="front", **kwargs):
        super().__init__(**kwargs)
        if render_camera not in ("front", "side"):
            raise UserError(f"there is no camera '{render_camera}'; there are front and side")
        self.channel = ("front", "", "side").index(render_camera)

    def render(self):
        frame = np.zeros((32, 32, 3), np.uint8)
        frame[:, :, self.channel] = 200
        return frame


class Counting(Walk):
    """Reports at the end of an episode, and before with other numbers, how long it was and whether it was long."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        info["metrics"] = {"steps": np.int64(self.time)}
        if terminated:
            info["metrics"]["long"] = self.time > 10
        if self.trouble.get(self.seed, [""])[0] == "nan-metric":
            info["metrics"]["long"] = float("nan")
        return observation, reward, terminated, truncated, info


class Together(Inspect):
    """Can be made only while `count` processes make it at the same time."""

    def __init__(self, folder, count):
        (Path(folder) / f"pid-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(Path(folder).glob("pid-*"))) < count:
            if time.monotonic() > deadline:
                raise RuntimeError("the others did not come")
            time.sleep(0.02)


class Slow(Inspect):
    """The first step of a process takes two seconds."""

    stepped = False

    def step(self, action):
        if not Slow.stepped:
            time.sleep(2)
        Slow.stepped = True
        return super().step(action)


class Lost(Inspect):
    """Cannot be reset: as a camera without a graphics library."""

    def __init__(self, folder):
        self.folder = folder

    def reset(self, *, seed=None, options=None):
        with open(Path(self.folder) / "resets", "a") as file:
            file.write("x")
        raise RuntimeError("no display\nfound")


gymnasium.register("toy/Odd-v0", entry_point=Odd)
gymnasium.register("toy/Drawn-v0", entry_point=Drawn)
gymnasium.register("toy/Unasked-v0", entry_point=Unasked)
gymnasium.register("toy/Undrawn-v0", entry_point=Undrawn)
gymnasium.register("toy/Broken-v0", entry_point=Broken)
gymnasium.register("toy/Filmed-v0", entry_point=Filmed)
gymnasium.register("toy/Counting-v0", entry_point=Counting)
gymnasium.register("toy/Together-v0", entry_point=Together)
gymnasium.register("toy/Slow-v0", entry_point=Slow)
gymnasium.register("toy/Lost-v0", entry_point=Lost)
gymnasium.register("toy/Homeless-v0", entry_point="a_simulator.that_is_not:There")
gymnasium.register("toy/Blind-v0", entry_point=Blind)
gymnasium.register("toy/Walk-v0", entry_point=Walk, max_episode_steps=5)
gymnasium.register("toy/Inspect-v0", entry_point=Inspect)
