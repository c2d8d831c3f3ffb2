import pytest

from policy_accel.benchmark.report import aligned, number, seconds, step_table

COUNTED = {
    "parameters": 65_783_298, "rows": 256, "flops": 4.53e11, "adamw_bytes": 1.84e9, "averages_bytes": 7.9e8,
    "gradient_bytes": 2.63e8, "cast_bytes": 3.95e8, "activation_bytes": 1e9, "muon_bytes": 1.3e9, "muon_flops": 6e11,
}  # fmt: skip
RESULT = {
    "counted": COUNTED,
    "rates": {"matmul_flops_per_second": 9.89e14, "copy_bytes_per_second": 4.8e12},
    "floor": {"seconds": 1.15e-3, "arithmetic_seconds": 4.6e-4, "memory_seconds": 6.9e-4},
    "core": {
        "updates_per_second": 500.0, "share_of_floor": 0.575, "host_seconds": 3e-5, "operations": 386,
        "operations_bytes": 5.4e9, "captured": True, "launches": 3, "graphs": 1, "peak_bytes": 2e9,
    },
    "eager": {"updates_per_second": 50.0},
    "times_the_eager_loop": {"median": 10.0, "min": 9.0, "max": 11.0},
    "times_the_eager_loop_in_cpu_seconds": {"median": 20.0, "min": 19.0, "max": 21.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.53e11, "453 GFLOP"), (1.84e12, "1.84 TFLOP"), (12_345, "12.3 kFLOP"), (1.5e6, "1.5 MFLOP"), (7, "7 FLOP")],
)
def test_numbers(value, text):
    assert number(value, "FLOP") == text


@pytest.mark.parametrize(("value", "text"), [(2.5, "2.5 s"), (1.152e-3, "1.15 ms"), (8e-6, "8 us")])
def test_seconds(value, text):
    assert seconds(value) == text


def test_columns():
    assert aligned([("a", "10", "x"), ("long", "5", "")]) == "a     10  x\nlong   5"


def test_every_figure_of_an_update_is_in_its_table():
    lines = {line[:28].strip(): " ".join(line[28:].split()) for line in step_table(RESULT).splitlines()}
    assert lines == {
        "parameters": "65.8 M",
        "arithmetic of an update": "453 GFLOP 256 rows",
        "AdamW": "1.84 GB read and written",
        "Muon": "1.3 GB read and written; 600 GFLOP of the arithmetic",
        "averages": "790 MB read and written",
        "gradients": "263 MB written",
        "weights in half precision": "395 MB read and written",
        "kept for the backward pass": "1 GB in float32; not in the floor",
        "matrix products here": "989 TFLOP/s",
        "copies here": "4.8 TB/s read and written",
        "floor": "1.15 ms arithmetic 460 us, memory 690 us",
        "an update takes": "2 ms 500 a second; the floor is 57% of it",
        "of the host's main thread": "30 us CPU time",
        "operations": "386 5.4 GB read and written, unfused",
        "as captured": "4 of them 1 CUDA graphs",
        "most memory": "2 GB both sides, all they keep",
        "eager loop": "20 ms 50 a second",
        "times the eager loop": "10 9 to 11 over the rounds",
        "the same in CPU seconds": "20 19 to 21",
    }
