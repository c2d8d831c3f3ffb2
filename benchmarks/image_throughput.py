"""Images per second of full training updates on image networks, beside a plain eager loop, and the share of the
device's peak that they use.

    python benchmarks/image_throughput.py --net ddpm --size small --batch 32 --updates 4
    python benchmarks/image_throughput.py --net ddpm --batch 256 --precision bf16 --compile --channels-last
    python benchmarks/image_throughput.py --net edm --batch 256 --precision bf16 --compile

Data are random bytes. The core's side is its own update (order, gathering, noise, loss, gradient, AdamW, EMA) on images
that lie on the device. The baseline is the loop of a usual training script: a DataLoader, diffusers' noise scheduler,
an AdamW that is not fused, gradient clipping, diffusers' EMA, a loss that is read back every step; its network is
diffusers' UNet2DModel for the DDPM net, and ours, run eagerly, for the others. Both have the precision asked for.

Every side lives in a process of its own, where it is built, compiled and warmed up once; then the sides take turns, in
reverse order in every other round, each turn with one update before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from image_throughput_sides import BASELINE, NETS, SEED, Side, baseline_updates, core_updates
from results import RESULTS, write_result
from torch import Tensor

from policy_accel.benchmark.rates import matmul_rate, wait_for
from policy_accel.models.flops import training_flops
from policy_accel.training.devices import choose_device, use_device

DENSE_BF16_TFLOPS = {"H100 80GB HBM3": 989.0, "H200": 989.0}
"""Data-sheet peaks without sparsity, by a part of the device's name."""


_running: dict[str, Iterator[Tensor]] = {}


def timed_updates(side: Side, updates: int) -> tuple[float, float]:
    """Seconds of `updates` updates of the side that lives in this process, and the last loss."""
    device = choose_device(side.device)
    if side.name not in _running:
        _running[side.name] = (baseline_updates if side.name == BASELINE else core_updates)(side, device)
    losses = _running[side.name]
    next(losses)  # takes back the memory that was handed to the others
    wait_for(device)
    began = time.perf_counter()
    for _ in range(updates):
        loss = next(losses)
    wait_for(device)
    seconds = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the others need the memory
    return seconds, float(loss)


def measured_peak(device_name: str, precision: str, threads: int) -> float:
    """TFLOP/s of the best of some large matrix products."""
    device = choose_device(device_name)
    use_device(device, threads=threads, matmul_precision="high")
    return matmul_rate(device, precision) / 1e12


def peak_in_own_process(arguments: argparse.Namespace) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured_peak, arguments.device, arguments.precision, arguments.threads).result()


def sides(arguments: argparse.Namespace) -> list[Side]:
    """The baseline and the core's variants, each with one more change than one before."""
    plain = Side(
        BASELINE,
        arguments.net,
        arguments.size,
        arguments.batch,
        arguments.images,
        arguments.precision,
        arguments.device,
        arguments.threads,
        arguments.workers,
    )
    found = [plain, replace(plain, name="core")]
    if arguments.channels_last:
        found.append(replace(found[1], name="core, channels last", channels_last=True))
    if arguments.compile:
        found += [replace(side, name=f"{side.name}, compiled", compiled=True) for side in found[1:]]
    return found


def measure(chosen: list[Side], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Images per second of every side, one figure a round; seconds of building, compiling and warming up; last loss."""
    context = multiprocessing.get_context("spawn")
    figures: dict[str, dict[str, Any]] = {side.name: {"rounds": []} for side in chosen}
    with contextlib.ExitStack() as stack:
        pools = {side.name: stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for side in chosen}
        for side in chosen:
            began = time.perf_counter()
            pools[side.name].submit(timed_updates, side, arguments.warmup).result()
            seconds = time.perf_counter() - began
            figures[side.name]["warmup_seconds"] = rounded(seconds)
            print(f"{side.name}: ready after {seconds:.1f} s", flush=True)
        for number in range(arguments.rounds):
            for side in chosen if number % 2 == 0 else reversed(chosen):
                seconds, loss = pools[side.name].submit(timed_updates, side, arguments.updates).result()
                if not math.isfinite(loss):
                    raise SystemExit(f"{side.name}: the loss is {loss}; a speed without training is worth nothing")
                rate = side.batch * arguments.updates / seconds
                figures[side.name]["rounds"].append(rate)
                figures[side.name]["last_loss"] = rounded(loss)
                print(f"round {number + 1}: {side.name}: {rate:.1f} images/s", flush=True)
    return figures


def summarise(figures: dict[str, dict[str, Any]], flops: float, peaks: dict[str, float]) -> dict[str, Any]:
    """Median rate of every side with TFLOP/s, shares of the peaks and ratio to the baseline of the same round."""
    base = figures[BASELINE]["rounds"]
    for name, side in figures.items():
        rate = statistics.median(side["rounds"])
        tflops = rate * flops / 1e12
        side |= {
            "images_per_second": rounded(rate),
            "tflops": rounded(tflops),
            "share_of_peak": {peak: rounded(tflops / value) for peak, value in peaks.items()},
        }
        ratios = [value / other for value, other in zip(side["rounds"], base, strict=True)]
        if name != BASELINE:
            spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
            side["times_the_baseline"] = {key: rounded(value) for key, value in spread.items()}
        side["rounds"] = [rounded(value) for value in side["rounds"]]
    return figures


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=("ddpm", "edm", "dit"), default="ddpm")
    parser.add_argument("--size", choices=("published", "small"), default="published", help="small: for CPUs")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=50_000, help="random images that are trained on")
    parser.add_argument("--updates", type=int, default=50, help="timed updates of a side in a round")
    parser.add_argument("--warmup", type=int, default=5, help="untimed updates of a side before all rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of all sides")
    parser.add_argument("--compile", action="store_true", help="also the core with torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="also the core with images channels last")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=4, help="of the baseline's DataLoader")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    counts = ("batch", "images", "updates", "warmup", "rounds", "threads")
    if min(getattr(arguments, name) for name in counts) < 1:
        parser.error(", ".join(f"--{name}" for name in counts) + " must be at least 1")
    if arguments.images < arguments.batch:
        parser.error("--images must be at least --batch")
    if arguments.channels_last and arguments.net == "dit":
        parser.error("--channels-last is for the U-Nets")
    return arguments


def main() -> None:
    arguments = parse()
    device = choose_device(arguments.device)
    load = os.getloadavg()
    chosen = sides(arguments)
    net = NETS[arguments.net, arguments.size]
    with torch.device("meta"):
        model = chosen[0].build()
    flops = training_flops(model, net.shape, net.classes)
    peak = peak_in_own_process(arguments)
    measured = measure(chosen, arguments)
    peaks = {"matrix product here": max(peak, peak_in_own_process(arguments))}
    if device.type == "cuda" and arguments.precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for part, value in DENSE_BF16_TFLOPS.items():
            if part in name:
                peaks["data sheet"] = value
    figures = summarise(measured, flops, peaks)
    for name, side in figures.items():
        ratio = side.get("times_the_baseline")
        times = f", {ratio['median']} times the baseline ({ratio['min']} to {ratio['max']})" if ratio else ""
        shares = ", ".join(f"{100 * share:.3g} % of the {peak}" for peak, share in side["share_of_peak"].items())
        print(f"{name}: {side['images_per_second']} images/s, {side['tflops']} TFLOP/s ({shares}){times}")
    write_result(
        arguments.output or RESULTS / f"image_throughput_{arguments.net}_{arguments.precision}_{device.type}.json",
        {
            "net": arguments.net,
            "size": arguments.size,
            "settings": asdict(net.config),
            "shape": net.shape,
            "classes": net.classes,
            "parameters": sum(p.numel() for p in model.parameters()),
            "training_gflops_per_image": rounded(flops / 1e9),
            "batch": arguments.batch,
            "precision": arguments.precision,
            "device": device.type,
            "seed": SEED,
            "updates_per_round": arguments.updates,
            "warmup_updates": arguments.warmup,
            "baseline_workers": arguments.workers,
            "peak_tflops": {key: rounded(value) for key, value in peaks.items()},
            "load_average_before": [round(value, 2) for value in load],
            "sides": figures,
        },
    )


if __name__ == "__main__":
    main()
