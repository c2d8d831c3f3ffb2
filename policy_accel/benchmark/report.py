"""What was measured, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float, unit: str) -> str:
    """Three digits with a prefix: `number(4.53e11, "FLOP")` is "453 GFLOP"."""
    for size, prefix in UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def seconds(value: float) -> str:
    """In a unit that fits: "1.15 ms"."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def aligned(rows: Sequence[tuple[str, str, str]]) -> str:
    """Rows (what, figure, remark) in columns."""
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{what:<{widths[0]}}  {figure:>{widths[1]}}  {remark}".rstrip() for what, figure, remark in rows)


def step_table(result: dict[str, Any]) -> str:
    """The result of `benchmark_step`."""
    counted = result["counted"]
    rows = [
        ("parameters", number(counted["parameters"], ""), ""),
        ("arithmetic of an update", number(counted["flops"], "FLOP"), f"{counted['rows']} rows"),
        ("AdamW", number(counted["adamw_bytes"], "B"), "read and written"),
        *_muon(counted),
        ("averages", number(counted["averages_bytes"], "B"), "read and written"),
        ("gradients", number(counted["gradient_bytes"], "B"), "written"),
    ]
    if counted["cast_bytes"]:
        rows.append(("weights in half precision", number(counted["cast_bytes"], "B"), "read and written"))
    rows.append(
        ("kept for the backward pass", number(counted["activation_bytes"], "B"), "in float32; not in the floor")
    )
    if "core" in result:
        rows += _measured(result)
    return aligned(rows)


def _muon(counted: dict[str, Any]) -> list[tuple[str, str, str]]:
    if not counted["muon_bytes"]:
        return []
    flops = f"read and written; {number(counted['muon_flops'], 'FLOP')} of the arithmetic"
    return [("Muon", number(counted["muon_bytes"], "B"), flops)]


def _measured(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    rates, floor, core, eager = (result[name] for name in ("rates", "floor", "core", "eager"))
    ratio, cpu_ratio = result["times_the_eager_loop"], result["times_the_eager_loop_in_cpu_seconds"]
    rows = [
        ("matrix products here", number(rates["matmul_flops_per_second"], "FLOP/s"), ""),
        ("copies here", number(rates["copy_bytes_per_second"], "B/s"), "read and written"),
        (
            "floor",
            seconds(floor["seconds"]),
            f"arithmetic {seconds(floor['arithmetic_seconds'])}, memory {seconds(floor['memory_seconds'])}",
        ),
        (
            "an update takes",
            seconds(1.0 / core["updates_per_second"]),
            f"{core['updates_per_second']:.4g} a second; the floor is {core['share_of_floor']:.0%} of it",
        ),
        ("of the host's main thread", seconds(core["host_seconds"]), "CPU time"),
        ("operations", str(core["operations"]), f"{number(core['operations_bytes'], 'B')} read and written, unfused"),
    ]
    if core["captured"]:
        rows.append(("as captured", str(core["launches"] + core["graphs"]), f"of them {core['graphs']} CUDA graphs"))
    return [
        *rows,
        ("most memory", number(core["peak_bytes"], "B"), "both sides, all they keep"),
        ("eager loop", seconds(1.0 / eager["updates_per_second"]), f"{eager['updates_per_second']:.4g} a second"),
        ("times the eager loop", f"{ratio['median']:.3g}", f"{ratio['min']:.3g} to {ratio['max']:.3g} over the rounds"),
        (
            "the same in CPU seconds",
            f"{cpu_ratio['median']:.3g}",
            f"{cpu_ratio['min']:.3g} to {cpu_ratio['max']:.3g}",
        ),
    ]


def sample_table(result: dict[str, Any]) -> str:
    """The result of `benchmark_sample`."""
    rows = [
        ("sampler", result["sampler"], f"{result['network_evaluations']} network evaluations"),
        ("arithmetic of a sample", number(result["flops_of_a_sample"], "FLOP"), ""),
        ("matrix products here", number(result["matmul_flops_per_second"], "FLOP/s"), ""),
    ]
    for call in result["calls"]:
        taken = call["milliseconds"]
        remark = (
            f"median of {call['timed']}; 95 % below {taken['p95']:.3g} ms; CPU {call['cpu_milliseconds']:.3g} ms; "
            f"floor {call['floor_milliseconds']:.3g} ms"
        )
        rows.append((f"a call for {call['batch']}", f"{taken['median']:.3g} ms", remark))
    return aligned(rows)


def latency_table(result: dict[str, Any]) -> str:
    """The result of `benchmark_latency`."""
    taken, steps = result["milliseconds"], result["n_action_steps"]
    how = f"{result['calls']} calls, {result['threads']} threads, load {result['load']:.2f}"
    rows = [
        ("sampler", result["sampler"], f"{result['network_evaluations']} network evaluations on {result['device']}"),
        *((name, f"{taken[name]:.3g} ms", how if name == "p50" else "") for name in ("p50", "p95", "p99", "largest")),
        ("highest control rate", f"{result['control_rate']:.3g} Hz", "a prediction between two steps, at p99"),
        ("asynchronous", f"{result['asynchronous_rate']:.3g} Hz", f"a prediction while {steps} actions are executed"),
        ("ready after", f"{result['ready_seconds']:.2g} s", "warmed up" if result["warmed_up"] else "not warmed up"),
    ]
    return aligned(rows)


def rollouts_table(result: dict[str, Any]) -> str:
    """The result of `benchmark_rollouts`."""
    rows = []
    for name, how in (
        ("vectorised", f"{result['slots']} at once, {result['workers']} workers"),
        ("sequential", "a loop over Policy.act"),
    ):
        side = result[name]
        rows.append(
            (
                f"{name}, {side['episodes']} episodes",
                f"{side['episodes_per_second']:.3g}/s",
                f"{side['cpu_seconds']:.3g} CPU seconds an episode; {how}",
            )
        )
    in_cpu = result["times_the_sequential_loop_in_cpu_seconds"]
    rows.append(("times the loop", f"{result['times_the_sequential_loop']:.3g}", f"{in_cpu:.3g} in CPU seconds"))
    rows.append(("largest difference of a score", f"{result['largest_score_difference']:.2g}", "same seeds"))
    return aligned(rows)
