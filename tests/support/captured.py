"""Updates of whole runs: captured on the simulated CUDA device, against the same ones as they are on the CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.training.build import order_of
from policy_accel.training.captured import CapturedFeed
from policy_accel.training.randomness import Generators
from policy_accel.training.update import Update

CPU = torch.device("cpu")
Trace = list[tuple[Any, ...]]


def update_of(track: Any, config: Any, device: torch.device, *, captured: bool) -> Update:
    """What trains in a run of `config`."""
    task = track.build(config)
    task.to(device)
    return Update(
        task,
        order_of(task, config.training, config.seed, device),
        config.training.optimizer,
        config.training.ema,
        steps=config.training.steps,
        generators=Generators(config.seed, device),
        precision=config.training.precision_on(device),
        captured=captured,
        log_every=config.training.logging.every,
    )


def losses_of(track: Any, config: Any, device: torch.device, *, captured: bool) -> torch.Tensor:
    """Of every update of the run [updates], which are logged at once: training.logging.every is training.steps."""
    update = update_of(track, config, device, captured=captured)
    for step in range(config.training.steps):
        update(step)
    return update.log.read().losses


@contextmanager
def bodies_traced(cuda: SimulatedCuda) -> Iterator[dict[str, list[Trace]]]:
    """What each call of the work that is captured does, by its name: operations, numbers of the host, shapes, place."""
    traces: dict[str, list[Trace]] = defaultdict(list)
    replayed = CapturedFeed.replayed

    def with_trace(feed: CapturedFeed[Any], work: Callable[[], Any]) -> Any:
        def traced() -> Any:
            cuda.trace = []
            result = work()
            traces[work.__name__].append(cuda.trace)
            cuda.trace = None
            return result

        return replayed(feed, traced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CapturedFeed, "replayed", with_trace)
        yield traces


def check_captured(track: Any, config: Any, *, tolerance: float = 1e-5) -> None:
    """The losses are the CPU's; an update does not wait, and nothing in it depends on the step but the buffers."""
    plain = update_of(track, config, CPU, captured=False)
    steps = 8 if plain.feed.ahead else 4  # two calls are warm-up; two batches under way have graphs of their own
    expected = [float(plain(step)[0]) for step in range(steps)]
    with SimulatedCuda() as cuda, bodies_traced(cuda) as traces:
        update = update_of(track, config, CUDA, captured=True)
        found = []
        for step in range(steps):
            with cuda.phase("update" if step == steps - 1 else "before"):
                loss, _ = update(step)
            found.append(float(loss.cpu()))
        assert found == pytest.approx(expected, rel=tolerance)
        assert not cuda.waits["update"]
        assert not cuda.hazards
        on_host = plain.task.objective.noise.on_host
        assert cuda.launches["update"]["graph"] == (2 if on_host else 1)
        assert set(traces) == ({"_draw", "_learn"} if on_host else {"_whole"})
        for name, calls in traces.items():
            assert calls[-1], name
            assert calls[-2] == calls[-1], name


def check_resumed(track: Any, config: Any) -> None:
    """An update that goes on from a checkpoint gives the numbers of the one that made it, bit for bit."""
    saved_at, end = 4, 7
    with SimulatedCuda():
        update = update_of(track, config, CUDA, captured=True)
        for step in range(saved_at):
            update(step)
        tensors = {name: {k: v.cpu().clone() for k, v in part.items()} for name, part in update.tensors().items()}
        state = update.state()
        expected = [float(update(step)[0].cpu()) for step in range(saved_at, end)]
        again = update_of(track, config, CUDA, captured=True)
        again.restore(tensors, state)
        assert [float(again(step)[0].cpu()) for step in range(saved_at, end)] == expected
        for name, part in update.tensors().items():
            for key, value in again.tensors()[name].items():
                assert torch.equal(value.cpu(), part[key].cpu()), f"{name}/{key}"
