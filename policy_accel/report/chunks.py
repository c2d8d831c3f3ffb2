"""An action chunk being denoised, of each arm: over the scene where the environment says how, else as curves.

It takes torch and the environment, so that it is left out of a page where that is asked for.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.progress import Progress
from policy_accel.report.media import spread
from policy_accel.report.runs import ReportedRun, arms_of, of_arm
from policy_accel.trust import admit

MOST_ARMS, SAMPLES, MOST_STATES = 4, 8, 24
Admit = Callable[[Path], None]
"""Refuses the modules of a run that the user does not trust, and imports the others."""


def chunks_of(runs: Sequence[ReportedRun], admitted: Admit = admit) -> tuple[list[dict[str, Any]], list[str]]:
    """For the first run of each arm what the page draws of its chunk, and sentences on what is missing.

    Args:
        runs: of policies.
        admitted: called before a run is loaded, see `policy_accel.trust`.
    """
    chunks, notes = list[dict[str, Any]](), list[str]()
    arms = arms_of(runs)
    shown = arms[:MOST_ARMS]
    with closing(Progress("draw", len(shown), unit="chunk")) as progress:
        for number, arm in enumerate(shown):
            run = next((run for run in of_arm(runs, arm) if _has_weights(run)), None)
            if run is None:
                notes.append(f"{arm} has no checkpoint yet.")
            else:
                try:
                    chunks.append({"name": str(number), "arm": arm, "seed": run.seed, **_chunk(run, admitted)})
                except UserError as error:
                    notes.append(f"No chunk of {arm}: {error}")
            progress.advance()
    if len(arms) > MOST_ARMS:
        notes.append(f"Chunks of {len(arms) - MOST_ARMS} more arms are left out; give fewer runs to see them.")
    return chunks, notes


def _has_weights(run: ReportedRun) -> bool:
    return (run.run_dir / "checkpoints" / "last" / "ema.safetensors").is_file()


def _chunk(run: ReportedRun, admitted: Admit) -> dict[str, Any]:
    admitted(run.run_dir)
    return described(run, _watched(run))


def _watched(run: ReportedRun) -> Any:
    from policy_accel.policy.controller import Policy
    from policy_accel.policy.denoising import watch_first_chunk

    policy = Policy.load(run.run_dir, device="cpu", noise_seed=policy_noise(run))
    first = policy.run.config.evaluation.start_seed
    return watch_first_chunk(policy, first, range(first, first + SAMPLES))


def policy_noise(run: ReportedRun) -> int:
    """Seed of the sampler's noise, as the run is scored with it."""
    seed = run.settings.get("evaluation.noise_seed", 0)
    return seed if isinstance(seed, int) else 0


def described(run: ReportedRun, watched: Any) -> dict[str, Any]:
    """What the page draws: "steps" [state][sample][step of the horizon][numbers], places on the scene or actions."""
    states = spread(range(len(watched.normalized)), MOST_STATES)
    count = len(watched.normalized) - 1
    evaluations = f"{count} network evaluation{'s' * (count > 1)}"
    shared = {"executed": list(watched.executed), "evaluations": list(states)}
    if watched.scene is None:
        steps = watched.normalized[states][:, :1]
        return {
            **shared,
            "kind": "lines",
            "steps": np.round(steps, 3).tolist(),
            "range": [float(np.floor(steps.min() * 10) / 10), float(np.ceil(steps.max() * 10) / 10)],
            "description": f"The first chunk of an episode from noise to actions in {evaluations}: a line for each "
            "number of an action, normalised. The environment does not say where its actions lie on its pictures.",
        }
    height, width = watched.scene.shape[:2]
    pixels = np.clip(watched.pixels[states], -2 * max(height, width), 3 * max(height, width))
    return {
        **shared,
        "kind": "scene",
        "steps": np.round(pixels, 1).tolist(),
        "scene": _jpeg(watched.scene),
        "width": width,
        "height": height,
        "description": f"The first chunk of an episode from noise to actions in {evaluations}, over the scene: thick "
        f"what is executed; faint the same from {pixels.shape[1] - 1} other noises.",
    }


def _jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
