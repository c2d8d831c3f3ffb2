import time

import numpy as np
import pytest

from policy_accel.errors import UserError
from policy_accel.evaluation.latency import LatencyMeter


def test_calls_are_timed_on_the_clock():
    meter = LatencyMeter()
    begin = time.perf_counter()
    for seconds in (0.3, 0.02, 0.02, 0.06):
        with meter:
            time.sleep(seconds)
        time.sleep(0.05)
    whole = 1000 * (time.perf_counter() - begin)
    assert meter.calls == 4
    assert 20 <= meter.percentile(0) <= meter.percentile(50) < meter.percentile(100)
    assert meter.percentile(100) >= 60
    assert 3 * meter.percentile(50) < whole - 300, "the first call is left out"
    milliseconds = meter.milliseconds()
    assert milliseconds == {"median": meter.percentile(50), "p95": meter.percentile(95)}


def test_percentiles_are_numpys():
    meter = LatencyMeter()
    for seconds in (9.0, 0.004, 0.001, 0.003, 0.002):
        meter._seconds.append(seconds)
    assert meter.percentile(50) == pytest.approx(2.5)
    assert meter.percentile(95) == pytest.approx(np.percentile([1, 2, 3, 4], 95))


def test_a_single_call_counts():
    meter = LatencyMeter("cpu")
    with meter:
        time.sleep(0.01)
    assert meter.percentile(50) >= 10


def test_a_call_that_raises_is_not_counted():
    meter = LatencyMeter()
    with pytest.raises(ArithmeticError), meter:
        raise ArithmeticError
    assert meter.calls == 0
    assert meter.milliseconds() is None


@pytest.mark.parametrize("share", [-1, 100.5])
def test_percentiles_out_of_range(share):
    meter = LatencyMeter()
    with meter:
        pass
    with pytest.raises(UserError, match=f"percentile {share}"):
        meter.percentile(share)


def test_no_calls_have_no_percentile():
    with pytest.raises(UserError, match="no call was measured"):
        LatencyMeter().percentile(50)
