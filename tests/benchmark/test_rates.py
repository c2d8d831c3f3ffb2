import pytest
import torch

from policy_accel.benchmark import rates

CPU = torch.device("cpu")


@pytest.fixture
def half_a_second(monkeypatch):
    """Everything takes half a second; what was asked for is kept."""
    done = []
    monkeypatch.setattr(rates, "best_seconds", lambda work, device: done.append(work()) or 0.5)
    return done


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_matrix_product_is_two_operations_for_each_multiplication(half_a_second, precision, dtype):
    assert rates.matmul_rate(CPU, precision) == 2 * 32**3 / 0.5
    assert half_a_second[0].shape == (32, 32)
    assert half_a_second[0].dtype == dtype


def test_a_copy_reads_and_writes(half_a_second):
    assert rates.copy_rate(CPU) == 2 * 4096 / 0.5
    assert torch.equal(half_a_second[0], torch.ones(1024))


def test_the_best_of_the_tries_counts_one_call(monkeypatch):
    clock = iter([0.0, 6.0, 10.0, 14.0])
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(rates, "REPEATS", {"cpu": 4})
    calls = []
    assert rates.best_seconds(lambda: calls.append(1), CPU) == 1.0
    assert len(calls) == 8
