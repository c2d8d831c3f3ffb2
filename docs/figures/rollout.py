"""A trained policy on the first starts of its test set, as an animation.

    policy-accel demo run_dir=runs/demo
    python docs/figures/rollout.py runs/demo

writes rollout.webp and its record rollout.json: the seeds, and the scores, which are those of the run's evaluation.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import record
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from style import FOLDER

from policy_accel import Policy

FIRST_SEED = 100_000
"""Of the demo's own evaluation."""
COLUMNS, ROWS = 3, 2
TILE, GAP = 156, 6
EVERY = 2
"""Environment steps a frame: at the demonstrations' 10 steps a second the picture runs at twice their speed."""
MILLISECONDS = 100
HOLD = 15
"""Frames that the end stays."""
DONE = (0, 110, 60)


@dataclass
class Episode:
    """Frames, one for each shown step, with the score so far, and the length in steps."""

    frames: list[Image.Image]
    scores: list[float]
    length: int
    success: bool


def main() -> None:
    """Run the episodes and write the animation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of `policy-accel demo`")
    run_dir = parser.parse_args().run_dir
    policy = Policy.load(run_dir)
    seeds = list(range(FIRST_SEED, FIRST_SEED + COLUMNS * ROWS))
    episodes = [run(policy, seed) for seed in seeds]
    frames = pictures(episodes)
    path = FOLDER / "rollout.webp"
    durations = [MILLISECONDS] * (len(frames) - 1) + [HOLD * MILLISECONDS]
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=45,
        method=6,
        minimize_size=True,
    )
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    evaluated = {row["seed"]: row["score"] for row in evaluation["episodes"]}
    figures = {
        "run_score": evaluation["score"],
        "run_score_interval": evaluation["score_interval"],
        "run_episodes": len(evaluated),
        "seeds": seeds,
        "evaluated_scores": [round(evaluated[seed], 4) for seed in seeds],
        "scores": [round(max(episode.scores), 4) for episode in episodes],
        "successes": [episode.success for episode in episodes],
        "lengths": [episode.length for episode in episodes],
        "times_real_speed": EVERY,
        "frames": len(frames),
        "seconds": sum(durations) / 1000,
        "size": list(frames[0].size),
    }
    record.write("rollout", run_dir, figures, path)


def run(policy: Policy, seed: int) -> Episode:
    """One episode as `policy-accel evaluate` runs it."""
    environment = gymnasium.make("policy_accel/PushT-v0", observation="keypoints")
    observation, _ = environment.reset(seed=seed)
    policy.reset(seed)
    episode = Episode([shown(environment)], [0.0], 0, False)
    best = 0.0
    for step in range(1, policy.run.config.task.max_steps + 1):
        observation, reward, ended, _, info = environment.step(policy.act(observation))
        best = max(best, float(reward))
        episode.length, episode.success = step, bool(info["is_success"])
        if step % EVERY == 0 or ended:
            episode.frames.append(shown(environment))
            episode.scores.append(best)
        if ended:
            break
    environment.close()
    return episode


def shown(environment: gymnasium.Env) -> Image.Image:
    """The scene at the size of a tile."""
    return Image.fromarray(np.asarray(environment.render())).resize((TILE, TILE), Image.Resampling.LANCZOS)


def pictures(episodes: list[Episode]) -> list[Image.Image]:
    """The episodes side by side on a transparent ground; one that is over stays as it ended."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)
    size = (COLUMNS * (TILE + GAP) - GAP, ROWS * (TILE + GAP) - GAP)
    frames = []
    for number in range(max(len(episode.frames) for episode in episodes)):
        frame = Image.new("RGBA", size, (0, 0, 0, 0))
        for place, episode in enumerate(episodes):
            shown = min(number, len(episode.frames) - 1)
            tile = episode.frames[shown].convert("RGBA")
            over = episode.success and shown == len(episode.frames) - 1
            text = f"score {episode.scores[shown]:.2f}"
            ImageDraw.Draw(tile).text((8, 6), text, fill=DONE if over else (60, 60, 60), font=font)
            frame.paste(tile, ((place % COLUMNS) * (TILE + GAP), (place // COLUMNS) * (TILE + GAP)))
        frames.append(frame)
    return frames


if __name__ == "__main__":
    main()
