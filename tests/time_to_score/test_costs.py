"""Costs of methods that use a sample several times, or ask the network for its noise, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT
from policy_accel.time_to_score.costs import UpdateWork, costs_at, work_of_an_update
from policy_accel.training.validation import Validation

SMALL = ["recipe=two_modes", "task.data=toy.npz", "model.hidden_dims=[16]", "training.batch_size=8",
         "training.steps=2", "training.checkpoint.at=[1]", "training.device=cpu", "training.threads=1",
         "evaluation.episodes=0"]  # fmt: skip
EVALUATIONS = {"baseline": 1, "kl": 4, "immiscible_denoiser": 2, "shortcut": 1.5}


def counted_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the rows of every evaluation of a network by updates from now on."""
    monkeypatch.setattr(Validation, "take", lambda *_, **more: None)  # which asks it too
    rows, forward = list[int](), torch.nn.Module.__call__

    def counted(self: torch.nn.Module, *given: object, **more: object) -> object:
        if type(self).__name__ == "MLP":
            rows.append(len(given[0]))  # type: ignore[arg-type]
        return forward(self, *given, **more)

    monkeypatch.setattr(torch.nn.Module, "__call__", counted)
    return rows


@pytest.mark.parametrize("method", EVALUATIONS)
def test_network_evaluations_are_the_rows_that_the_network_saw(
    method: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ROBOT.config([*SMALL, f"method={method}", f"run_dir={method}", "training.validate_every=0"])
    rows = counted_rows(monkeypatch)
    ROBOT.train(config)
    seen, work = sum(rows), work_of_an_update(config)
    assert costs_at(Path(method), config, 2, work)["network_evaluations"] == seen == 16 * EVALUATIONS[method]
    first = costs_at(Path(method), config, 1, work)
    assert (first["updates"], first["samples"], first["flops"]) == (1, 8, work.flops)
    assert 0 < first["seconds"] < costs_at(Path(method), config, 2, work)["seconds"]


def test_a_student_s_rows_and_those_of_its_teacher(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of each sample, forward and back, and the eight steps of the teacher's sampler."""
    plain = [*SMALL, "training.validate_every=0"]
    ROBOT.train(ROBOT.config([*plain, "run_dir=teacher"]))
    student = ROBOT.config([*plain, "run_dir=student", "distillation.teacher=teacher", "sampling.times=[99]"])
    rows = counted_rows(monkeypatch)
    ROBOT.train(student)
    seen, work = sum(rows), work_of_an_update(student)
    assert costs_at(Path("student"), student, 2, work)["network_evaluations"] == seen == 16 * (2 + 8)


def test_fresh_samples_count_as_samples(place: Path) -> None:
    config = ROBOT.config([*SMALL, "method=kl_fresh", "run_dir=fresh"])
    ROBOT.train(config)
    found = costs_at(Path("fresh"), config, 2, UpdateWork(1.0, 1.0))
    assert (found["samples"], found["network_evaluations"]) == (2 * 8 * 4, 2 * 8 * 4)


def test_flops_follow_the_rows(place: Path) -> None:
    one, four = (work_of_an_update(ROBOT.config([*SMALL, f"method={name}"])).flops for name in ("baseline", "kl"))
    assert four == 4 * one > 0


def test_a_checkpoint_without_a_row(place: Path) -> None:
    Path("r").mkdir()
    Path("r/metrics.jsonl").write_text(json.dumps({"step": 1, "validation_loss": 2.0}) + "\n")
    with pytest.raises(UserError, match="has no row of update 1"):
        costs_at(Path("r"), ROBOT.config(SMALL), 1, UpdateWork(1.0, 1.0))
