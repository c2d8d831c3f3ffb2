"""Chunks of actions that are denoised over the scene of Push-T.

policy-accel demo run_dir=runs/demo
python docs/figures/denoising.py runs/demo       # writes the record, denoising.json
python docs/figures/draw.py denoising            # draws it
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import record
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from style import WIDTH, Scheme
from torch import Tensor

from policy_accel import Policy
from policy_accel.diffusion.processes import Level
from policy_accel.envs.pusht import GOAL_POSE
from policy_accel.envs.pusht_pushes import OUTLINE, to_window
from policy_accel.policy.planner import chunk_noise

SEED = 100_000
CHUNK = 3
"""The chunk of the episode that is shown: some way in, where the agent is about to push."""
DRAWS = 8
"""Chunks from other noise, for the same observation."""
PANELS = (0, 4, 6, 7, 8)
"""States that are drawn: after so many steps of the sampler."""


def main() -> None:
    """Write the record of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of `policy-accel demo`")
    run_dir = parser.parse_args().run_dir
    policy = Policy.load(run_dir)
    record.write("denoising", run_dir, {"seed": SEED, "chunk": CHUNK, **states(policy)})


def states(policy: Policy) -> dict[str, Any]:
    """The scene, and the states of the sampler: times [S], trajectories [S, draws, horizon, 2] in px of the window."""
    environment = gymnasium.make("policy_accel/PushT-v0", observation="keypoints")
    observation, _ = environment.reset(seed=SEED)
    policy.reset(SEED)
    network, sampler = policy.run.policy, policy.run.sampler
    seen = [observation] * network.config.n_obs_steps
    for _ in range(CHUNK * network.config.n_action_steps):
        observation, *_ = environment.step(policy.act(observation))
        seen.append(observation)
    inside: Any = environment.unwrapped
    block = [*inside.block.position, inside.block.angle]
    watched: list[Tensor] = []
    levels: list[float] = []

    def watch(x: Tensor, level: Level) -> Tensor:
        watched.append(x)
        levels.append(float(level.sigma))
        return x

    noise = chunk_noise(network.noise_shape(sampler), 0, [SEED] * DRAWS, [CHUNK + 1000 * k for k in range(DRAWS)])
    observed = torch.tensor(np.array(seen[-network.config.n_obs_steps :]))[None].expand(DRAWS, -1, -1)
    condition = network.encode(network.observation_normalizer(observed))
    with torch.no_grad():
        sampler(lambda x, t: network.denoiser(x, t, condition), noise, known=watch)
    pixels = torch.stack([network.decoded(x) for x in watched])
    return {
        "block": [round(float(value), 4) for value in block],
        "agent": [round(float(value), 2) for value in inside.agent.position],
        "sigmas": [round(level, 4) for level in levels],
        "trajectories": np.round(pixels.numpy(), 1).tolist(),
    }


def draw(scheme: Scheme) -> Figure:
    """The figure in one scheme, from the record."""
    found = record.read("denoising")
    chunks = np.array(found["trajectories"])
    figure = Figure(figsize=(WIDTH, 1.85))
    for axes, state in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for pose, colour, alpha in ((GOAL_POSE, scheme.green, 0.35), (found["block"], scheme.muted, 0.75)):
            axes.add_patch(Polygon(to_window(OUTLINE, np.array(pose)), color=colour, alpha=alpha, linewidth=0))
        for chunk in chunks[state, 1:]:
            axes.plot(*chunk.T, color=scheme.blue, linewidth=0.8, alpha=0.4)
        axes.plot(*chunks[state, 0].T, color=scheme.orange, linewidth=1.6, marker="o", markersize=2.5)
        axes.plot(*found["agent"], "o", color=scheme.blue, markersize=7)
        axes.set(xlim=(0, 512), ylim=(512, 0), xticks=[], yticks=[], aspect="equal")
        axes.set_title("noise" if state == 0 else f"step {state}", fontsize=9.5)
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(scheme.muted)
    return figure


if __name__ == "__main__":
    main()
