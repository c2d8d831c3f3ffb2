"""The simulated device itself: planted faults are found, and correct code is not accused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.simulated_cuda import CUDA, CaptureError, DeviceMismatch, SimulatedCuda, SimulatedTensor
from torch import Tensor


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as device:
        yield device


def waits(cuda: SimulatedCuda, code: Callable[[], object]) -> list[str]:
    with cuda.phase("here"):
        code()
    return list(cuda.waits["here"])


def test_tensors_say_cuda_and_compute(cuda: SimulatedCuda) -> None:
    x = torch.ones(4, 3, device="cuda")
    assert isinstance(x, SimulatedTensor)
    assert x.is_cuda
    assert x.device == CUDA
    assert torch.equal((x + 2.0).sum(0).cpu(), torch.full((3,), 12.0))
    assert torch.equal((x + torch.tensor(2.0)).cpu(), torch.full((4, 3), 3.0))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.ones(4, 3),
        lambda x: torch.cat([x, torch.zeros(4, 3)]),
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: torch._fused_adamw_(
            [x], [x], [x], [x], [], [torch.ones(())], lr=0.1, beta1=0.9, beta2=0.9, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False,
        ),
    ],
)  # fmt: skip
def test_operands_on_two_devices_are_refused(cuda: SimulatedCuda, mixed: Callable[[Tensor], object]) -> None:
    with pytest.raises(DeviceMismatch, match="same device"):
        mixed(torch.ones(4, 3, device="cuda"))


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda x: float(x.sum()), "one number"),
        (lambda x: bool((x > 0).all()), "one number"),
        (lambda x: x[x > 0], "boolean index"),
        (lambda x: x[torch.tensor([0, 1])], "indices on the host"),
        (lambda x: x.cpu(), "copy to the host: blocking"),
        (lambda x: torch.tensor([1.0, 2.0], device="cuda"), "copy to the device: blocking"),
        (lambda x: x.nonzero(), "how many"),
        (lambda x: torch.zeros(2).to("cuda"), "copy to the device: blocking"),
        (lambda x: torch.zeros(2).to("cuda", non_blocking=True), "copy to the device: pageable"),
        (lambda x: torch.zeros(2).pin_memory().to("cuda"), "copy to the device: blocking"),
        (lambda x: torch.equal(x, x), "comparison"),
        (lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.int64, device="cuda"), 0), "sum"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
    ],
)
def test_every_wait_is_found(cuda: SimulatedCuda, wait: Callable[[Tensor], object], what: str) -> None:
    x = torch.ones(4, 3, device="cuda")
    found = waits(cuda, lambda: wait(x))
    assert len(found) == 1
    assert what in found[0]


def test_training_without_a_wait_is_not_accused(cuda: SimulatedCuda) -> None:
    net = torch.nn.Linear(3, 2).to("cuda")
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    generator = torch.Generator("cuda").manual_seed(1)

    def step() -> None:
        z = torch.randn(5, 3, generator=generator, device="cuda")
        z = z + torch.zeros(3).pin_memory().to("cuda", non_blocking=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            low = net(z)
            assert low.dtype == torch.bfloat16
            low.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert waits(cuda, step) == []
    assert not cuda.hazards


def test_pinned_memory_holds_nonsense_until_something_waits(cuda: SimulatedCuda) -> None:
    event = torch.cuda.Event()
    host = torch.empty(5, pin_memory=True).copy_(torch.ones(5, device="cuda"), non_blocking=True)
    event.record()
    assert host.isnan().all()
    late = torch.empty(5, pin_memory=True).copy_(torch.ones(5, device="cuda"), non_blocking=True)
    event.synchronize()
    assert torch.equal(host, torch.ones(5))
    assert late.isnan().all()


def test_a_pinned_source_that_is_written_too_early_is_a_hazard(cuda: SimulatedCuda) -> None:
    host = torch.zeros(5, pin_memory=True)
    host.to("cuda", non_blocking=True)
    host.fill_(1.0)
    torch.cuda.synchronize()
    assert len(cuda.hazards) == 1


class Counter:
    """state += draw * scale, as a body that a graph can capture."""

    def __init__(self) -> None:
        self.state, self.scale = torch.zeros(2, device="cuda"), torch.ones((), device="cuda")
        self.generator = torch.Generator("cuda").manual_seed(3)

    def body(self) -> Tensor:
        drawn = torch.randn(2, generator=self.generator, device="cuda") * self.scale
        self.state.add_(drawn)
        return drawn


def test_a_replay_is_the_next_eager_call(cuda: SimulatedCuda) -> None:
    eager, captured = Counter(), Counter()
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(captured.generator)
    with torch.cuda.graph(graph):
        drawn = captured.body()
    assert torch.equal(captured.state.cpu(), torch.zeros(2)), "a capture computes nothing"
    assert drawn.cpu().isnan().all(), "nor does it give anything"
    for scale in (1.0, 1.0, 3.0):
        eager.scale.fill_(scale)
        captured.scale.fill_(scale)
        expected = eager.body()
        with cuda.phase("replay"):
            graph.replay()
        assert torch.equal(drawn.cpu(), expected.cpu())
        assert torch.equal(captured.state.cpu(), eager.state.cpu())
    assert cuda.launches["replay"] == {"graph": 3}


def test_a_graph_freezes_numbers_of_the_host(cuda: SimulatedCuda) -> None:
    x, numbers, graph = torch.ones(2, device="cuda"), iter((2.0, 3.0)), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * next(numbers)
    graph.replay()
    graph.replay()
    assert torch.equal(y.cpu(), torch.full((2,), 2.0))
    assert next(numbers) == 3.0


def test_copies_in_a_graph_go_through_pinned_memory(cuda: SimulatedCuda) -> None:
    into, out = torch.zeros(2, pin_memory=True), torch.zeros(2, pin_memory=True)
    graph = torch.cuda.CUDAGraph()
    buffer = torch.zeros(2, device="cuda")
    with torch.cuda.graph(graph):
        buffer.copy_(into, non_blocking=True)
        out.copy_(2 * buffer, non_blocking=True)
    for value in (1.0, 5.0):
        into.fill_(value)
        graph.replay()
        assert out.isnan().all()
        torch.cuda.synchronize()
        assert torch.equal(out, torch.full((2,), 2 * value))
    assert not cuda.hazards


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (lambda x: float(x.sum()), "reads one number"),
        (lambda x: x.to("cpu"), "copy to the host"),
        (lambda x: torch.tensor([1.0], device="cuda"), "copy to the device"),
        (lambda x: torch.empty(3, pin_memory=True), "pinned memory"),
        (lambda x: torch.randn(3, device="cuda", generator=torch.Generator("cuda")), "not registered"),
    ],
)
def test_what_a_graph_cannot_capture_is_refused(
    cuda: SimulatedCuda, body: Callable[[Tensor], object], sentence: str
) -> None:
    x, graph = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph()
    with pytest.raises(CaptureError, match=sentence), torch.cuda.graph(graph):
        body(x)


@pytest.mark.parametrize("mode", ["global", "thread_local"])
def test_other_threads_disturb_a_capture_that_is_not_of_its_thread_alone(cuda: SimulatedCuda, mode: str) -> None:
    x, graph = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph()
    with ThreadPoolExecutor(1) as pool, torch.cuda.graph(graph, capture_error_mode=mode):
        y = 2 * x
        other = pool.submit(lambda: x + torch.ones(3, pin_memory=True).to("cuda", non_blocking=True))
        error = other.exception()
    if mode == "global":
        assert isinstance(error, CaptureError)
        return
    assert torch.equal(other.result().cpu(), torch.full((3,), 2.0)), "it is no part of the graph"
    graph.replay()
    assert torch.equal(y.cpu(), torch.full((3,), 2.0))


def test_a_generator_of_a_capture_is_for_nobody_else(cuda: SimulatedCuda) -> None:
    generator, graph = torch.Generator("cuda"), torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with ThreadPoolExecutor(1) as pool, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        torch.randn(3, device="cuda", generator=generator)
        other = pool.submit(lambda: torch.randn(3, device="cuda", generator=generator))
        assert isinstance(other.exception(), CaptureError)


def test_memory_that_is_freed_before_a_replay_is_found(cuda: SimulatedCuda) -> None:
    x, graph = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = 2 * x
    graph.replay()
    assert torch.equal(y.cpu(), torch.full((3,), 2.0))
    del x
    with pytest.raises(CaptureError, match="freed since the capture"):
        graph.replay()
