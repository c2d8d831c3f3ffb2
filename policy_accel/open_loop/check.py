"""`policy-accel evaluate RUN --data PATH`: the open-loop check of a run, from its checkpoint to what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.open_loop.episodes import measured_episodes
from policy_accel.open_loop.errors import Demonstrated
from policy_accel.open_loop.figure import Played, draw
from policy_accel.open_loop.measure import Chunks, samplers_of
from policy_accel.open_loop.words import ONE_EPISODE, conclusion, table
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling, TunedSampling, sampling_record
from policy_accel.training.averages import MAIN
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.run_directory import checkpoint_path

PICTURE = "open_loop.png"
DRAWN, LONGEST = 2, 300
"""Episodes in the picture, and steps of each."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class OpenLoopConfig:
    """On what a run is checked.

    Raises:
        UserError: a number out of range.
    """

    data: str | None = None
    """Demonstrations in any format that is read; None for those of the run."""
    layout: Path | None = None
    """Where HDF5 of another make has its data, as `task.layout`; None for that of the run, where the data are HDF5."""
    episodes: Sequence[str] | None = None
    """Of the data, by number and range; None for those that did not train the run."""
    windows: int = 256
    """Steps of the episodes at which a chunk is predicted, evenly spaced."""
    noise_seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("windows", 1), ("noise_seed", 0)):
            if getattr(self, name) < least:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} {getattr(self, name)} must be at least {least}.")


def open_loop(
    run_dir: Path,
    config: OpenLoopConfig,
    report: Report,
    *,
    checkpoint: str = "last",
    average: str = MAIN,
    asked: AskedSampling = AS_CHOSEN,
    device: str = "auto",
) -> dict[str, Any]:
    """Compare what a run predicts with what was demonstrated, and draw it (docs/how_to/open_loop.md). JSON-able.

    Args:
        run_dir: of a policy.
        config: on what.
        report: takes lines for the user.
        checkpoint: last, best or a step.
        average: of the weights.
        asked: how it is sampled.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: as `ROBOT.load` and `measured_episodes` do; an action that is not finite.
    """
    began, place = time.perf_counter(), choose_device(device, "--device")
    run = ROBOT.load(run_dir, checkpoint, "cpu", average, asked=asked)
    training, executed = run.config.training, run.config.policy.n_action_steps
    use_device(place, threads=training.threads, matmul_precision=training.matmul_precision)
    if run.sampling_note is not None:
        report(run.sampling_note)
    fingerprint = str(load_checkpoint(checkpoint_path(run_dir, checkpoint), ()).state["data"])
    measured = measured_episodes(run.config, run.policy, fingerprint, config.data, config.episodes, config.layout)
    chunks = Chunks(run, measured, noise_seed=config.noise_seed, device=place)
    samplers = samplers_of(run, asked, None if asked.untuned else TunedSampling.read(run_dir))
    rows = chunks.rows(config.windows)
    unit = measured.unit
    demonstrated = Demonstrated(*chunks.demonstrated(rows), executed, unit.spread)
    samplings = [
        {
            "network_evaluations": sampler.network_evaluations(),
            "own": sampler is run.sampler,
            **sampling_record(sampler.config),
            **demonstrated.errors(predicted),
        }
        for sampler, predicted in zip(samplers, chunks.predicted(rows, samplers), strict=True)
    ]
    references = {"repeat_last": chunks.before(rows), "mean": unit.mean}
    result: dict[str, Any] = {
        "task": run.config.task.name,
        "step": run.step,
        "average": average,
        "data": run.config.task.data if config.data is None else config.data,
        "episodes": list(measured.episodes),
        "training_episodes": measured.trained,
        "windows": len(rows),
        "noise_seed": config.noise_seed,
        "n_action_steps": executed,
        "dimensions": list(measured.dimensions),
        "spread": [float(value) if np.isfinite(value) else 0.0 for value in unit.spread],
        "spread_of": measured.unit_of,
        "samplings": samplings,
        "references": {name: demonstrated.errors(predicted) for name, predicted in references.items()},
    }
    report(f"Compared with demonstrations: {len(rows)} chunks in {measured.which}.")
    if len(measured.episodes) == 1:
        report(ONE_EPISODE)
    report(table(result))
    report(conclusion(result))
    _picture(run_dir, chunks, measured.episodes, executed, run.sampler, result, report)
    return {**result, "seconds": time.perf_counter() - began}


def _picture(
    run_dir: Path,
    chunks: Chunks,
    episodes: Sequence[int],
    executed: int,
    sampler: Any,
    result: Mapping[str, Any],
    report: Report,
) -> None:
    """Draw the first episodes, each chunk predicted where the one before has been executed."""
    begins = chunks.starts.tolist()
    ends = [min(begin + LONGEST, end) for begin, end in zip(begins, [*begins[1:], len(chunks.actions)], strict=True)]
    shown = list(zip(episodes, begins, ends, strict=True))[:DRAWN]
    rows = [np.arange(begin, end, executed) for _, begin, end in shown]
    predicted = np.split(chunks.predicted(np.concatenate(rows), [sampler])[0], np.cumsum([len(part) for part in rows]))
    played = [
        Played(number, chunks.actions[begin:end], (part - begin).tolist(), these[:, :executed])
        for (number, begin, end), part, these in zip(shown, rows, predicted, strict=False)
    ]
    title = (
        f"{run_dir.name}, step {result['step']}: actions at the demonstrated observations of {result['data']}, "
        f"{sampler.config.sampler} with {sampler.network_evaluations()} evaluations"
    )
    names = result["dimensions"]
    try:
        drawn = draw(run_dir / PICTURE, title, names, played, result)
    except UserError as error:  # a shared run, for example
        report(f"No picture was made: {error}")
        return
    some = "" if drawn == len(names) else f" (the first {drawn} of {len(names)} numbers)"
    report(f"Predicted and demonstrated actions{some}: {run_dir / PICTURE}")
