"""Where a model comes from: its data, what its training took, and what it scored."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from policy_accel.data.download import shipped_path
from policy_accel.diffusion import Sampler
from policy_accel.files import explained
from policy_accel.foreign.kinds import library_of
from policy_accel.parsing import from_json, from_yaml, is_number
from policy_accel.robot.exporting.about import read_about
from policy_accel.run_files import read_metrics, results_folder
from policy_accel.training.averages import MAIN
from policy_accel.training.checkpoint import evaluation_of, load_checkpoint
from policy_accel.training.heading import method_of

OUR_LICENCE = "MIT, as policy_accel, whose scripted expert made them"


class Loaded(Protocol):
    """What is taken of a loaded run of any track."""

    @property
    def config(self) -> Any:
        """Its configuration."""

    @property
    def step(self) -> int:
        """Updates that were made."""

    @property
    def sampler(self) -> Sampler:
        """Its sampler."""

    @property
    def source(self) -> Path | None:
        """A run directory, or a file that was exported, saved to be shared, or is of another library."""


def provenance_of(run: Loaded, kept: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Data, method, cost and score of a model, JSON-able; what is not known is left out.

    Args:
        run: with its source.
        kept: what a card says of an evaluation.
    """
    source = run.source
    if source is None or not source.exists():
        return {}
    if source.is_dir():
        found = _of_run(run, source)
    elif (library := library_of(source)) is not None:
        found = {"method": f"read from {library}: {source.name}", **_data(run)}
    else:
        found = dict(read_about(source).get("provenance") or {})
    scored = _newest(read_metrics(results_folder(source) / "evaluations.jsonl"), run.step)
    if scored is None:
        scored = evaluation_of(source / "checkpoints" / f"{run.step:08d}")
    return found if scored is None else {**found, "evaluation": kept(scored)}


def _newest(results: list[dict[str, Any]], step: int) -> dict[str, Any] | None:
    """The newest evaluation of these weights, one whose simulator waits for the policy if there is any."""
    own = [row for row in results if row.get("step") == step and row.get("average", MAIN) == MAIN]
    prompt = [row for row in own if "control" not in row]
    return (prompt or own)[-1] if own else None


def _of_run(run: Loaded, source: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"method": method_of(run.config), **_data(run), "updates": run.step}
    rows = [row for row in read_metrics(source / "metrics.jsonl") if row.get("step", 0) <= run.step and "loss" in row]
    if rows and is_number(rows[-1].get("samples")):
        found["network_evaluations"] = round(rows[-1]["samples"] * run.sampler.objective.repetition.repeats)
    if rows and is_number(rows[-1].get("training_seconds")):
        found["seconds"] = rows[-1]["training_seconds"]
    checkpoint = source / "checkpoints" / f"{run.step:08d}"
    state = load_checkpoint(checkpoint, ()).state if checkpoint.is_dir() else {}
    return found | {name: str(state[name]) for name in ("device", "precision") if name in state}


def _data(run: Loaded) -> dict[str, Any]:
    data = run.config.task.data
    licence = licence_of(data)
    return {"data": Path(data).name or data, **({} if licence is None else {"data_licence": licence})}


def licence_of(data: str) -> str | None:
    """The licence of demonstrations: of those that ship, of public sets that we have a manifest of, or what a README.md
    of theirs says; None where nobody says it."""
    if data.startswith("shipped:"):
        return OUR_LICENCE
    parts = Path(data).parts
    for manifest in sorted(shipped_path("manifest").glob("*.json")):
        entry = from_json(manifest.read_bytes())
        names = {entry.get("file"), Path(str(entry.get("member", ""))).name} - {None, ""}
        if names & set(parts):
            return str(entry["licence"])
    return _readme_licence(Path(data).expanduser())


def _readme_licence(data: Path) -> str | None:
    """What the head of a README.md in a data set's folder says, as data sets of the hub have it."""
    readme = (data if data.is_dir() else data.parent) / "README.md"
    if not data.exists() or not readme.is_file():
        return None
    with explained(readme, "read"):
        head = re.match(r"---\n(.*?)\n---", readme.read_text(errors="replace"), re.DOTALL)
    try:
        values = from_yaml(head[1]) if head else None
    except ValueError:
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return licence if isinstance(licence, str) else None
