"""What the processes of `two_ranks` are asked to do."""

from __future__ import annotations

import os
import runpy
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.track import IMAGES
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.track import ROBOT
from policy_accel.track import track
from policy_accel.training.build import build_update
from policy_accel.training.loop import train
from policy_accel.training.ranks import RankLost, Ranks
from policy_accel.training.update import Update


def facts(ranks: Ranks) -> dict[str, Any]:
    number = torch.tensor([1.0 + ranks.rank, 10.0])
    return {
        "first": ranks.first,
        "own": [ranks.own(8), ranks.own(2)],
        "sum": ranks.sum_(number).tolist(),
        "gathered": ranks.gather(torch.tensor([[ranks.rank, 7]])).tolist(),
        "any": [ranks.any(False), ranks.any(ranks.rank == 1)],
        "collected": ranks.collect(f"of {ranks.rank}"),
        "shared": ranks.share(f"of {ranks.rank}"),
        "spread": list(ranks.spread(["a", "b", "c"], lambda part: part + str(ranks.rank))),
    }


def fails_on(ranks: Ranks, rank: int) -> str:
    def work() -> int:
        if ranks.rank == rank:
            raise UserError(f"no room on {rank}.")
        return ranks.rank

    try:
        return f"went well: {ranks.together(work)}"
    except UserError as error:
        return f"{error} {'The other says it.' if error.told else ''}"


def loses_the_other(ranks: Ranks) -> str:
    if ranks.rank == 1:
        os._exit(3)
    try:
        ranks.any(True)
    except RankLost as error:
        return str(error)
    return "nothing was noticed"


def trained(ranks: Ranks, track_name: str, config: Any, updates: int) -> dict[str, Any]:
    """Losses and gradient norms of the first updates of a run, and its weights after them; the other ranks' weights are
    the same bits."""
    chosen = track(track_name)
    update = build_update(chosen.build(config), config.training, config.seed, ranks)
    figures = [[float(figure) for figure in update(step) if figure is not None] for step in range(updates)]
    weights = {
        f"{part}/{name}": value.detach().clone()
        for part, tensors in update.tensors().items()
        for name, value in tensors.items()
    }
    flat = torch.cat([value.flatten().float() for value in weights.values()])
    assert all(torch.equal(flat, row) for row in ranks.gather(flat[None]))
    return {"losses": [row[0] for row in figures], "norms": [row[1:] for row in figures], "weights": weights}


def rows_read(ranks: Ranks, track_name: str, config: Any) -> list[list[int]]:
    """The samples that the own process reads for each of two updates."""
    chosen = track(track_name)
    task = chosen.build(config)
    update = build_update(task, config.training, config.seed, ranks)
    read, batch = list[list[int]](), type(task).batch

    def noted(self: Any, indices: torch.Tensor, drawn: Any) -> Any:
        read.append(indices.tolist())
        return batch(self, indices, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "batch", noted)
        update(0)
        update.feed.samples(1)
    return read[:2]


def commanded(ranks: Ranks, folder: Path, words: list[str]) -> int:
    """The exit status of a command in a folder, run by both processes as if torchrun had just started them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module in ("track", "commands.evaluate"):
            patch.setattr(f"policy_accel.{module}.joined", lambda device: nullcontext(ranks))
        return main(words)


def run(
    ranks: Ranks, config: Any, stop: tuple[int, int] | None = None, task: ChunkTask | None = None
) -> dict[str, Any]:
    """Train a run of the robot track; `stop` (rank, step): a signal reaches that rank after that update."""

    def signalled(step: int) -> None:
        if stop == (ranks.rank, step):
            os.kill(os.getpid(), signal.SIGTERM)

    trained = train(
        task or ROBOT.build(config, scored=True, ranks=ranks),
        config.training,
        seed=config.seed,
        run_dir=Path(config.run_dir),
        run_config=ROBOT.record(config),
        after_update=signalled,
        ranks=ranks,
    )
    return {"step": trained.step, "finished": trained.finished, "evaluation": trained.evaluation}


def error_of(ranks: Ranks, config: Any, other_data: int | None = None) -> str:
    """What a run says that cannot be; the data are others on the rank `other_data`."""
    task = ROBOT.build(config)
    if ranks.rank == other_data:
        task.fingerprint = "other"
    try:
        run(ranks, config, task=task)
    except UserError as error:
        return str(error)
    return "nothing"


def scored_images(ranks: Ranks, config: Any) -> dict[str, Any] | None:
    """The whole score of an untrained model, with its grid and its film."""
    task = IMAGES.build(config, scored=True, ranks=ranks)
    return task.evaluate(task.model.eval(), lambda line: None, step=config.training.steps)


def drawn_images(ranks: Ranks, config: Any) -> torch.Tensor:
    """Images of an untrained model, three batches."""
    task = IMAGES.build(config, scored=True, ranks=ranks)
    assert isinstance(task.evaluator, ImageEvaluator)
    return task.evaluator.samples(task.model.eval(), range(5))


def benchmarked(ranks: Ranks, script: Path, overrides: list[str], updates: int, warm_up: int) -> list[Any]:
    """What benchmarks/ranks.py measures in a process: seconds, CPU seconds, loss; and how many shared each update."""
    shared, call = list[int](), Update.__call__

    def counted(update: Update, step: int) -> Any:
        shared.append(update.ranks.count)
        return call(update, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "__call__", counted)
        measured = runpy.run_path(str(script))["timed_updates"](ranks, overrides, updates, warm_up)
    return [measured.seconds, measured.cpu_seconds, measured.last_loss, shared]


def bytes_kept(ranks: Ranks, config: Any) -> dict[str, int]:
    """Bytes of weights, gradients and moments that this process keeps between the parts of an update."""
    update = build_update(IMAGES.build(config), config.training, config.seed, ranks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update.optimizer, "zero_grad", lambda: None)
        update(0)
    gradients = [parameter.grad for parameter in update.parameters if parameter.grad is not None]
    moments = [value for name, value in update.optimizer.state_dict().items() if not name.endswith("step")]
    return {
        name: sum(own_part(tensor).numel() * tensor.element_size() for tensor in tensors)
        for name, tensors in (("weights", update.parameters), ("gradients", gradients), ("moments", moments))
    }


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def finite_with_a_nan(ranks: Ranks, config: Any, rank: int | None) -> bool:
    """Whether all weights are finite, where a share of `rank` has one that is not."""
    update = build_update(IMAGES.build(config), config.training, config.seed, ranks)
    if ranks.rank == rank:
        update.weights.live[0].view(-1)[0] = torch.nan
    return bool(update.finite())


def gathered_parts(ranks: Ranks, config: Any) -> list[str]:
    """Names of the modules that are gathered as one."""
    model = build_update(IMAGES.build(config), config.training, config.seed, ranks).task.model
    return [name for name, part in model.named_modules() if isinstance(part, FSDPModule)]
