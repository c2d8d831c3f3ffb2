import time

import numpy as np
import pytest

from policy_accel.evaluation.latency import LatencyMeter


def test_calls_are_timed_on_the_clock():
    meter = LatencyMeter()
    begin = time.perf_counter()
    for seconds in (0.3, 0.02, 0.02, 0.06):
        with meter.call():
            time.sleep(seconds)
        time.sleep(0.05)
    whole = 1000 * (time.perf_counter() - begin)
    assert len(meter.seconds) == 4
    milliseconds = meter.milliseconds()
    assert 20 <= milliseconds["median"] < milliseconds["p95"]
    assert milliseconds["p95"] >= 55
    assert 3 * milliseconds["median"] < whole - 300, "the first call is left out"


def test_percentiles_are_numpys():
    meter = LatencyMeter()
    for seconds in (9.0, 0.004, 0.001, 0.003, 0.002):
        meter.seconds.append(seconds)
    assert meter.milliseconds() == pytest.approx({"median": 2.5, "p95": np.percentile([1, 2, 3, 4], 95)})


def test_a_single_call_counts():
    meter = LatencyMeter("cpu")
    with meter.call():
        time.sleep(0.01)
    assert meter.milliseconds()["median"] >= 10


def test_a_call_that_raises_is_not_counted():
    meter = LatencyMeter()
    with pytest.raises(ArithmeticError), meter.call():
        raise ArithmeticError
    assert not meter.seconds
    assert meter.milliseconds() is None
