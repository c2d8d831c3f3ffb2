"""Updates as CUDA graphs, on the simulated device, against the same updates as they are on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda
from support.simulated_cuda.graphs import SimulatedGraph
from torch import Tensor

from policy_accel.acceleration.assigned_noise import AssignedNoise
from policy_accel.acceleration.momentum_decay import DemonDecay
from policy_accel.acceleration.nearest_noise import NearestChoice
from policy_accel.acceleration.timestep_curriculum import CurriculumTimes
from policy_accel.acceleration.timestep_distributions import LossSecondMoment
from policy_accel.diffusion.timesteps import UniformTimes
from policy_accel.errors import UserError
from policy_accel.run_files import read_metrics
from policy_accel.training import Batch, TrainingConfig, train
from policy_accel.training.ema import EMAConfig
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.update import Update

CPU = torch.device("cpu")
STEPS = 14


pytestmark = pytest.mark.usefixtures("quick_warm_up")


def update_of(task: Any, device: torch.device, *, captured: bool, **optimizer: Any) -> Update:
    task.to(device)
    return Update(
        task,
        DataOrder(task.samples, 8, 3, device),
        OptimizerConfig(lr=1e-2, warmup_steps=2, **optimizer),
        EMAConfig(lengths=[0.1]),
        steps=STEPS,
        generators=Generators(3, device),
        captured=captured,
        log_every=STEPS,
    )


def weights(update: Update) -> Tensor:
    """All but a bias before a batch normalisation, whose gradient is rounding alone."""
    models = [update.task.model, *update.ema.models().values()]
    named = [item for model in models for item in model.named_parameters()]
    return torch.cat([p.detach().cpu().flatten() for name, p in named if name != "layers.0.bias"])


NOISES: dict[str, Callable[[], Any]] = {
    "independent": lambda: None,
    "assigned": lambda: AssignedNoise(metric="dot"),
    "assigned in blocks": lambda: AssignedNoise(metric="l2", block_size=3),
    "assigned around the average": lambda: AssignedNoise(metric="dot", center="denoiser"),
    "assigned later": lambda: AssignedNoise(metric="dot", start_step=6),
    "nearest": lambda: NearestChoice(3, "l2"),
    "nearest later": lambda: NearestChoice(3, "l2", start_step=6),
}
TIMES: dict[str, Callable[[], Any]] = {
    "uniform": lambda: UniformTimes(100),
    "curriculum": lambda: CurriculumTimes(100, unbiased=True),
    "learning": lambda: LossSecondMoment(100, history=1),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_grad_norm": 0.5},
    "decaying": {"momentum_decay": DemonDecay(), "weight_decay": 0.1},
}
CASES = [
    *((noise, "uniform", "plain") for noise in NOISES),
    *(("assigned", times, "clipped") for times in TIMES),
    *(("independent", times, optimizer) for times, optimizer in itertools.product(TIMES, OPTIMIZERS)),
]


@pytest.mark.parametrize(("noise", "times", "optimizer"), dict.fromkeys(CASES))
def test_graphs_give_the_updates_of_the_cpu_without_a_wait(
    noise: str, times: str, optimizer: str, device_task: Callable[..., Any]
) -> None:
    plain = update_of(device_task(NOISES[noise](), TIMES[times]()), CPU, captured=False, **OPTIMIZERS[optimizer])
    expected = [plain(step) for step in range(STEPS)]
    with SimulatedCuda() as cuda:
        update = update_of(device_task(NOISES[noise](), TIMES[times]()), CUDA, captured=True, **OPTIMIZERS[optimizer])
        for step, (loss, norm) in enumerate(expected):
            with cuda.phase("update" if STEPS - 5 < step < STEPS - 1 else "before"):
                found, found_norm = update(step)
            torch.testing.assert_close(found.cpu(), loss, rtol=1e-5, atol=1e-6)
            assert (found_norm is None) == (norm is None)
            if norm is not None:
                torch.testing.assert_close(found_norm.cpu(), norm, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weights(update), weights(plain), rtol=1e-5, atol=1e-6)
        assert not cuda.waits["update"]
        assert not cuda.hazards
        on_host = NOISES[noise]() is not None and NOISES[noise]().on_host
        assert cuda.launches["update"]["graph"] == (6 if on_host else 3)
        assert sum(cuda.launches["update"].values()) <= (20 if on_host else 14), "the rest is copies of numbers"
        logged = update.log.read()
    torch.testing.assert_close(logged.losses, torch.stack([loss for loss, _ in expected]), rtol=1e-5, atol=1e-6)
    if OPTIMIZERS[optimizer].get("clip_grad_norm"):
        assert logged.grad_norm == pytest.approx(float(torch.stack([norm for _, norm in expected]).mean()), rel=1e-4)


@pytest.mark.parametrize("noise", ["independent", "assigned", "assigned around the average", "assigned later"])
def test_a_run_of_graphs_goes_on_where_it_was(noise: str, device_task: Callable[..., Any], cuda: SimulatedCuda) -> None:
    update = update_of(device_task(NOISES[noise]()), CUDA, captured=True)
    for step in range(7):
        update(step)
    tensors = {name: {k: v.cpu().clone() for k, v in part.items()} for name, part in update.tensors().items()}
    state = update.state()
    expected = [float(update(step)[0].cpu()) for step in range(7, STEPS)]
    again = update_of(device_task(NOISES[noise]()), CUDA, captured=True)
    again.restore(tensors, state)
    assert [float(again(step)[0].cpu()) for step in range(7, STEPS)] == expected
    assert torch.equal(weights(again), weights(update))


def test_figures_of_the_choice_are_those_of_the_newest_batch(device_task: Callable[..., Any]) -> None:
    def figures(device: torch.device, captured: bool) -> list[dict[str, float]]:
        noise = AssignedNoise(metric="dot")
        update = update_of(device_task(noise), device, captured=captured)
        found = []
        for step in range(8):
            update(step)
            found.append({name: value for name, value in noise.statistics().items() if "milliseconds" not in name})
        return found

    expected = figures(CPU, False)
    with SimulatedCuda():
        found = figures(CUDA, True)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert expected[6] != expected[7]


def test_samples_that_lie_on_the_host_are_read_ahead(device_task: Callable[..., Any], cuda: SimulatedCuda) -> None:
    def run(resident: bool) -> list[float]:
        task = device_task(AssignedNoise(metric="dot"))
        task.resident = resident
        update = update_of(task, CUDA, captured=True)
        losses = [float(update(step)[0].cpu()) for step in range(6)]
        again = update_of(task, CUDA, captured=True)
        again.restore(update.tensors(), update.state())
        return [*losses, *(float(again(step)[0].cpu()) for step in range(6, 9))]

    assert run(False) == run(True)


@pytest.mark.parametrize("resident", [True, False])
def test_the_thread_that_reads_has_the_generator_of_batches_for_itself(
    resident: bool, device_task: Callable[..., Any], cuda: SimulatedCuda
) -> None:
    task = device_task()
    task.resident = resident
    update = update_of(task, CUDA, captured=True)
    assert update.captured is not None
    registered = update.captured.replayed(lambda: None).generators
    assert (update.feed.generators.batch in registered) == resident
    assert update.feed.generators.noise in registered


class Impatient(NearestChoice):
    """A choice of noise from outside that reads a number of the device."""

    def choose(self, batch: Batch, draw: Any, generator: torch.Generator) -> Any:
        float(batch.x0.sum())
        return super().choose(batch, draw, generator)


def test_what_cannot_be_captured_is_said(device_task: Callable[..., Any], cuda: SimulatedCuda) -> None:
    update = update_of(device_task(Impatient(2, "l2")), CUDA, captured=True)
    update(0)
    with pytest.raises(UserError, match=r"cannot be captured as a CUDA graph .*set training\.capture=false"):
        update(1)
    eager = update_of(device_task(Impatient(2, "l2")), CUDA, captured=False)
    assert float(eager(0)[0].cpu()) > 0


@pytest.mark.parametrize("capture", ["auto", "false", "True"])
def test_a_whole_run_on_the_device(
    capture: str,
    device_task: Callable[..., Any],
    config: TrainingConfig,
    tmp_path: Path,
    cuda: SimulatedCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`device=auto` finds it; a run in two parts ends with the weights of one."""
    config.device, config.capture = "auto", capture

    def run(name: str, steps_now: int | None = None) -> list[dict[str, Any]]:
        def stop(step: int) -> None:
            if step == steps_now:
                raise KeyboardInterrupt

        train(
            device_task(AssignedNoise(metric="dot")),
            config,
            seed=7,
            run_dir=tmp_path / name,
            run_config={"training": {"steps": config.steps}},
            after_update=stop,
        )
        return read_metrics(tmp_path / name / "metrics.jsonl")

    reset = 0

    def count(graph: SimulatedGraph) -> None:
        nonlocal reset
        reset += 1

    monkeypatch.setattr(SimulatedGraph, "reset", count)
    whole = run("whole")
    assert reset == (0 if capture == "false" else 4), "graphs are let go of: NCCL would wait for them"
    run("parts", steps_now=6)
    parts = run("parts")
    assert cuda.launches["setup"]["graph"] == (0 if capture == "false" else cuda.launches["setup"]["graph"])
    assert capture == "false" or cuda.launches["setup"]["graph"] > 10
    for key in ("loss", "validation_loss", "lr"):
        assert [row[key] for row in parts if key in row] == [row[key] for row in whole if key in row]
    last = (tmp_path / name / "checkpoints" / "last" / "ema.safetensors" for name in ("whole", "parts"))
    assert len({path.read_bytes() for path in last}) == 1


def test_graphs_need_a_cuda_device(config: TrainingConfig) -> None:
    config.capture = "true"
    with pytest.raises(UserError, match=r"training\.capture=true needs a CUDA device, and this run is on the cpu"):
        config.captures(CPU)
    config.capture = "auto"
    assert not config.captures(CPU)
    assert config.captures(CUDA)
