"""How many CPU threads a run takes where nobody says: the faster of one and all, as the machine is now."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable

import torch

from policy_accel.training.loss import denoising_loss
from policy_accel.training.randomness import Generators
from policy_accel.training.update import Update

WORTH_IT = 200
"""Updates of a run that is long enough to measure first."""
PASSES = 2
CLEAR = 1.3
"""Ratio of two times of which the second need not be measured again."""


def choose_threads(update: Update, seed: int) -> None:
    """Set torch's threads to one or leave them at all of its own, by the time that a batch takes with each.

    Two threads wait for one another at every operation: beside a busy process that costs more than the second one
    brings. Nothing of the run is touched. OMP_NUM_THREADS is a choice already.
    """
    all_of_them = torch.get_num_threads()
    if update.device.type != "cpu" or all_of_them == 1 or update.steps < WORTH_IT or "OMP_NUM_THREADS" in os.environ:
        return
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(fastest(_rehearsal(update, seed), (1, all_of_them)))


def fastest(work: Callable[[], None], choices: tuple[int, ...]) -> int:
    """The number of threads with which `work` takes the least time; in turns, the first of which does not count, until
    it is clear."""
    seconds = dict.fromkeys(choices, 0.0)
    for turn in range(1 + PASSES):
        if max(seconds.values()) > CLEAR * min(seconds.values()):
            break
        for threads in choices:
            torch.set_num_threads(threads)
            began = time.perf_counter()
            work()
            seconds[threads] += time.perf_counter() - began if turn else 0.0
    return min(choices, key=lambda threads: seconds[threads])


def _rehearsal(update: Update, seed: int) -> Callable[[], None]:
    """Loss and gradient of what goes through the network at once, of a copy of it and with streams of its own."""
    task, generators = update.task, Generators(seed, update.device)
    model = copy.deepcopy(update.ema.model).train().requires_grad_(True)
    objective = task.objective.plain()
    indices = torch.arange(update.batch_size // (update.ranks.count * update.pieces)) % task.samples
    batch = task.batch(indices, task.draw(len(indices), generators.batch))

    def work() -> None:
        noised = objective.draw(batch, generators.time, generators.noise)
        with update.autocast():
            loss = denoising_loss(model, batch, noised)
        loss.backward()

    return work
