"""The scores of runs, read from their directories as data: nothing of a run is executed, and torch is not imported."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policy_accel.comparison.arms import arm_names, printable
from policy_accel.comparison.made_of import MadeOf, made_of
from policy_accel.comparison.older import with_later_settings
from policy_accel.errors import UserError, did_you_mean
from policy_accel.files import explained
from policy_accel.groups import flatten
from policy_accel.parsing import from_json, read_record
from policy_accel.run_files import CHANGES, CONFIG, FREE_KEYS, below, read_config, read_metrics
from policy_accel.sweep.folder import RECORD, read_sweep

NO_ARM = (
    *FREE_KEYS,
    *("seed", "label", "method", "plugins", "evaluation"),
    *("training.checkpoint", "training.validate_every", "training.evaluate_every", "training.ema.lengths"),
)
"""Settings, and sections of them, in which runs of one arm may differ: what is learnt does not follow from them, or
only by chance. How a run was scored is read from its evaluation, since `evaluate` may have changed it."""
GUIDE = "guide"
"""Of an evaluation of images: the network that guided them, which is no setting of the run but makes the arm too."""
OF_RUNS = ("distillation.teacher", "init_from", GUIDE)
"""What names another run."""
STEPS = "training.steps"
TIMES = "sampling.times"
EVEN = ("sampling.steps", "sampling.spacing")
"""Settings that have no effect beside sampling.times."""
CHURN = ("sampling.churn", "sampling.churn_min", "sampling.churn_max", "sampling.churn_noise")
"""Settings that have no effect but on the sampler heun."""
SAMPLING = {
    "sampler": "sampling.sampler",
    "sampling_steps": "sampling.steps",
    "sampling_spacing": "sampling.spacing",
    "sampling_times": TIMES,
    "sampling_clip_sample": "sampling.clip_sample",
    **{key.replace(".", "_"): key for key in CHURN},
    "guidance": "sampling.guidance",
    "sampling_guidance_interval": "sampling.guidance_interval",
}
"""Key of an evaluation -> the setting that it took the place of."""

SCORES = ("score", "success")
"""Measures that every episode has, of which more is better."""


@dataclass(frozen=True)
class ScoredRun:
    """A run and how it was scored.

    Attributes:
        run_dir: its directory.
        track: robot or images.
        task: name of its task.
        method: as `method=NAME` chose it.
        arm: the method, and what else tells the run from others beside the training seed: "kl", "kl lr=0.001".
        seed: of the training; None where the run has not begun.
        settings: what makes the arm, by dotted key; sampling as in the evaluation.
        named: keys of the settings that the arm's name has.
        score: of the measure that was asked for; None where there is none.
        scores: the same for each episode, by evaluation seed; None for images.
        better: "higher" or "lower"; "" of a metric of the episodes, which does not say.
        made_of: what the score of images is made of; None of episodes, and where the record does not say.
        evaluation: the whole record; empty where there is none.
        config: the whole configuration, flat.
        missing: why there is no score, in words; empty where there is one.
    """

    run_dir: Path
    track: str = ""
    task: str = ""
    method: str = ""
    arm: str = ""
    seed: int | None = None
    settings: dict[str, Any] | None = None
    named: tuple[str, ...] = ()
    score: float | None = None
    scores: dict[int, float] | None = None
    better: str = "higher"
    made_of: MadeOf | None = None
    evaluation: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    missing: str = ""


def scored_runs(paths: Sequence[Path], *, measure: str = "score", checkpoint: int | None = None) -> list[ScoredRun]:
    """The runs of run directories and sweeps, in the order that they are given; one that comes twice, once.

    Args:
        paths: run directories and folders of sweeps.
        measure: "score"; of policies also "success" or a metric of the episodes; of images also one of the measures.
        checkpoint: take the score of this step; None takes the newest evaluation.

    Raises:
        UserError: a path that is neither; a damaged file; a measure that a scored run does not have.
    """
    found: dict[Path, Path] = {}
    for run_dir in (run_dir for path in paths for run_dir in _run_dirs(path)):
        found.setdefault(run_dir.resolve(), run_dir)
    begun = {place: read_config(run_dir) for place, run_dir in found.items() if (run_dir / CONFIG).is_file()}
    configs = dict(zip(begun, with_later_settings(list(begun.values())), strict=True))
    runs = [_read(run_dir, configs.get(place), measure, checkpoint) for place, run_dir in found.items()]
    names = arm_names([(run.method, run.settings) for run in runs if run.settings is not None])
    named = iter(names)
    return [run if run.settings is None else replace(run, **next(named)._asdict()) for run in runs]


def _run_dirs(path: Path) -> list[Path]:
    with explained(path, "read"):
        if (path / RECORD).is_file():
            sweep = read_sweep(path)
            return [sweep.run_dir(name) for name in sweep.runs]
        if not (path / CONFIG).is_file():
            raise UserError(
                f"{path} is neither a run directory (no {CONFIG}) nor the folder of a sweep (no {RECORD}); "
                "give the run_dir of runs, or the sweep_dir of a sweep."
            )
    return [path]


def _read(run_dir: Path, recorded: dict[str, Any] | None, measure: str, checkpoint: int | None) -> ScoredRun:
    if recorded is None:
        return ScoredRun(run_dir, missing="not begun")
    config = flatten(recorded)
    settings = {key: value for key, value in config.items() if not below(key, NO_ARM)}
    evaluation = _evaluation(run_dir, checkpoint)
    settings |= {key: evaluation[name] for name, key in SAMPLING.items() if name in evaluation}
    idle: tuple[str, ...] = (
        (TIMES,) if settings.get(TIMES) is None else EVEN
    )  # runs of versions without times have no such key
    if settings.get("sampling.sampler") != "heun":
        idle += CHURN
    settings = {key: value for key, value in settings.items() if key not in idle}
    try:
        seed, track, task = int(config["seed"]), printable(config["track"]), printable(config["task.name"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run_dir / CONFIG} is no configuration of a run ({type(error).__name__}: {error}); give another run."
        ) from error
    if isinstance(guide := evaluation.get(GUIDE), dict):
        settings[GUIDE] = " ".join(str(guide.get(key)) for key in ("run", "step", "average"))
    for key in OF_RUNS:  # whose folder names the seed, which often is that of the run
        if settings.get(key):
            settings[key] = re.sub(rf"seed{seed}(?!\d)", "seed", str(settings[key]))
    rows = [row for row in read_metrics(run_dir / CHANGES) if isinstance(row.get("changes"), dict)]
    extended = [row for row in rows if STEPS in row["changes"]]
    if extended:  # whose learning rate is not that of a run that had the length from the start
        settings["training.extended_at"] = "+".join(str(row.get("step")) for row in extended)
    run = ScoredRun(
        run_dir,
        track,
        task,
        printable(config.get("method")),
        seed=seed,
        settings=settings,
        evaluation=evaluation,
        config=config,
    )
    if not evaluation:
        return replace(run, missing="no score yet" if checkpoint is None else f"no score of step {checkpoint}")
    try:
        return _with_score(run, evaluation, measure)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"the evaluation of {run_dir} is damaged ({type(error).__name__}: {error}); score the run again with "
            "`policy-accel evaluate`."
        ) from error


def _evaluation(run_dir: Path, checkpoint: int | None) -> dict[str, Any]:
    """The newest record of a run, or the one of a step: beside the checkpoint, or the latest that `evaluate` made."""
    if checkpoint is None:
        return _json(run_dir / "evaluation.json")
    history = run_dir / "evaluations.jsonl"
    with explained(history, "read"):
        lines = history.read_text(errors="replace").splitlines() if history.is_file() else []
    for number in reversed(range(len(lines))):
        try:
            row = from_json(lines[number])
            if row.get("step") == checkpoint:
                return dict(row)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{history}: line {number + 1} is damaged ({type(error).__name__}); remove that line."
            ) from error
    return _json(run_dir / "checkpoints" / f"{checkpoint:08d}" / "evaluation.json")


def _json(path: Path) -> dict[str, Any]:
    with explained(path, "read"):
        if not path.is_file():
            return {}
    return read_record(path, "score the run again")


def _with_score(run: ScoredRun, evaluation: dict[str, Any], measure: str) -> ScoredRun:
    if "episodes" not in evaluation:
        measures = evaluation.get("measures", {})
        if measure == "score":
            return replace(run, score=_finite(evaluation["score"]), made_of=made_of(evaluation))
        if measure not in measures:
            _refuse_measure(run, measure, ["score", *measures])
        found = measures[measure]
        return replace(run, score=_finite(found["value"]), better=str(found["better"]))
    rows = evaluation["episodes"]
    if not rows:
        return replace(run, missing="no episodes")
    if len({int(row["seed"]) for row in rows}) < len(rows):
        raise ValueError("an evaluation seed comes twice")
    known = {int(row["seed"]): {**row.get("metrics", {}), **{name: row[name] for name in SCORES}} for row in rows}
    # An episode that failed has no metrics.
    scores = {seed: _finite(found[measure]) for seed, found in known.items() if measure in found}
    if not scores:
        _refuse_measure(run, measure, list(dict.fromkeys(name for found in known.values() for name in found)))
    better = "higher" if measure in SCORES else ""
    return replace(run, score=sum(scores.values()) / len(scores), scores=scores, better=better)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a score is {number}")
    return number


def _refuse_measure(run: ScoredRun, measure: str, known: Sequence[str]) -> None:
    raise UserError(f"{run.run_dir} has no measure '{measure}'; {did_you_mean(measure, known)}")
