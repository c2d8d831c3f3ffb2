"""What several GPUs would cost, on paper: the exchange of the gradients beside the floor of an update.

    python benchmarks/scaling_model.py

Bytes and FLOP are counted (`policy_accel/benchmark/counting.py`), rates are those of data sheets, and nothing is
measured. Prints the tables of docs/explanation/many_gpus.md, which states every assumption in words.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from policy_accel.benchmark.counting import Counted, count_update
from policy_accel.benchmark.step import Floor, floor_of
from policy_accel.configuration import source_of
from policy_accel.track import track

FLOPS, BYTES = 989e12, 4.8e12
"""A second, of an H200: bf16 matrix products, memory."""
BACKWARD = 2 / 3
"""Of the arithmetic: two products for each of the forward pass."""
PARTS = 4
"""Messages that gradients would be cut into to send one while the backward pass makes the next."""
DEAR = 0.1
"""Of the floor: what the exchange may add before it is worth a thought."""
GPUS = (2, 8, 16, 64)
WIDTHS = {"fp32": 4, "bf16": 2}
"""Bytes of a number on the way, by `training.reduce_precision`."""
COLUMNS = {"exchange_seconds": 1e3, "adds": 100, "adds_overlapped": 100, "times": 1}
"""Of the table of costs, and what they are multiplied by there."""
NETS = {
    "small U-Net": "recipe=small",
    "reference U-Net": "recipe=diffusion_policy",
    "image policy": "recipe=diffusion_policy_image",
    "DiT-XL/2, 32 x 32": "recipe=ddpm_cifar10 model=dit_xl task=shapes task.resolution=32 training.batch_size=32 "
    "training.ema.lengths=[]",
}


@dataclass(frozen=True)
class Links:
    """Of a cluster. Rates are bytes a second one way; steps are the seconds until a message of no size has passed, in a
    ring (large messages) and in a tree (small ones), as NCCL's own model has them.

    node: GPUs that NVLink joins. cards: network cards of a node.
    """

    node: int = 8
    nvlink: float = 450e9
    cards: int = 8
    card: float = 50e9
    ring_steps: tuple[float, float] = (3.4e-6, 14e-6)
    tree_steps: tuple[float, float] = (0.6e-6, 5e-6)

    def nodes(self, gpus: int) -> int:
        """That so many GPUs fill."""
        return math.ceil(gpus / self.node)

    def rate(self, gpus: int) -> float:
        """Of a GPU: where messages leave the node, all of its cards share them."""
        return self.nvlink if self.nodes(gpus) == 1 else min(self.nvlink, self.cards * self.card)


def ring(size: float, gpus: int, links: Links) -> float:
    """Seconds in which each GPU sends 2 (W - 1) / W of `size` bytes, in 2 (W - 1) steps; two for each node use a
    card."""
    nodes, steps = links.nodes(gpus), 2 * (gpus - 1)
    between = 0 if nodes == 1 else 2 * nodes
    inside, outside = links.ring_steps
    return (steps - between) * inside + between * outside + steps / gpus * size / links.rate(gpus)


def tree(size: float, gpus: int, links: Links) -> float:
    """Seconds up and down a tree of nodes, along the GPUs of each, at a quarter of the rate: quick messages carry a
    mark with every word."""
    inside, outside = links.tree_steps
    steps = (min(gpus, links.node) - 1) * inside + math.ceil(math.log2(links.nodes(gpus))) * outside
    return 2 * (steps + size / (links.rate(gpus) / 4))


def all_reduce(size: float, gpus: int, links: Links) -> float:
    """Seconds of a sum of `size` bytes over the GPUs, the quicker way."""
    return min(ring(size, gpus, links), tree(size, gpus, links))


def exchange(numbers: int, width: int, gpus: int, links: Links) -> float:
    """Seconds of what an update does: copy the gradients into one buffer, sum it, copy it back, and sum the loss."""
    copies = 2 * numbers * (4 + width) / BYTES
    return copies + all_reduce(numbers * width, gpus, links) + all_reduce(4, gpus, links)


def overlapped(numbers: int, width: int, gpus: int, links: Links, backward: float) -> float:
    """What would remain of `exchange` if the sum went in parts during a backward pass of so many seconds: the last
    part, or what the backward pass leaves of all."""
    part = all_reduce(numbers * width / PARTS, gpus, links)
    remains = max(part, PARTS * part - backward * (PARTS - 1) / PARTS)
    whole = all_reduce(numbers * width, gpus, links)
    return exchange(numbers, width, gpus, links) - whole + min(whole, remains)


def scaling(counted: Counted, links: Links) -> dict[str, Any]:
    """Of a network: its floor on one GPU, and what the exchange adds, by number of GPUs and precision."""
    floor, numbers = floor_of(counted, FLOPS, BYTES), counted.gradient_bytes // 4

    def by_width(figure: Callable[[int], Any]) -> dict[str, Any]:
        return {name: figure(width) for name, width in WIDTHS.items()}

    def dear_from(width: int) -> int | None:
        counts = range(2, max(GPUS) + 1)
        return next((n for n in counts if exchange(numbers, width, n, links) > DEAR * floor.seconds), None)

    def rows(width: int, gpus: int) -> int:
        arithmetic = exchange(numbers, width, gpus, links) / DEAR - floor.memory_seconds
        return max(1, math.ceil(counted.rows * arithmetic / floor.arithmetic_seconds))

    return {
        "counted": asdict(counted),
        "floor": {**asdict(floor), "seconds": floor.seconds},
        "gpus": {str(n): by_width(lambda width, n=n: _costs(floor, numbers, width, n, links)) for n in GPUS},
        "dear_from_gpus": by_width(dear_from),
        "rows_a_gpu_below_dear": {str(n): by_width(lambda width, n=n: rows(width, n)) for n in GPUS},
    }


def _costs(floor: Floor, numbers: int, width: int, gpus: int, links: Links) -> dict[str, float]:
    """adds: of the floor, with as many rows on each GPU as on one. times: as fast, at most, with as many on all."""
    seconds = exchange(numbers, width, gpus, links)
    left = overlapped(numbers, width, gpus, links, BACKWARD * floor.arithmetic_seconds)
    return {
        "exchange_seconds": seconds,
        "adds": seconds / floor.seconds,
        "adds_overlapped": left / floor.seconds,
        "times": floor.seconds / (floor.arithmetic_seconds / gpus + floor.memory_seconds + seconds),
    }


def costs_table(nets: dict[str, Any]) -> str:
    """What the exchange costs, in Markdown; pairs are fp32 and bf16."""
    lines = [
        "| net | rows a GPU | floor, ms | GPUs | exchange, ms | it adds, % | overlapped, % | same batch, times |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, net in nets.items():
        floor = " + ".join(f"{1e3 * net['floor'][part]:.3g}" for part in ("arithmetic_seconds", "memory_seconds"))
        head = f"| {name} | {net['counted']['rows']} | {floor} "
        for gpus, costs in net["gpus"].items():
            cells = [
                " / ".join(_digits(scale * cost[key]) for cost in costs.values()) for key, scale in COLUMNS.items()
            ]
            lines.append(f"{head}| {gpus} | {' | '.join(cells)} |")
            head = "| | | "
    return "\n".join(lines)


def rows_table(nets: dict[str, Any]) -> str:
    """From how many rows a GPU on the exchange adds less than 10 %, in Markdown; pairs are fp32 and bf16."""
    lines = [f"| net | {' | '.join(f'{n} GPUs' for n in GPUS)} |", "|---" * (1 + len(GPUS)) + "|"]
    for name, net in nets.items():
        cells = [" / ".join(_digits(rows) for rows in by.values()) for by in net["rows_a_gpu_below_dear"].values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    """Two digits, and no powers of ten."""
    return f"{float(f'{value:.2g}'):,.10g}"


def made_up_pictures(path: Path) -> None:
    """Demonstrations with random pictures, which cost as much as real ones."""
    import numpy as np

    generator, steps = np.random.default_rng(0), 128
    numbers = {name: generator.normal(size=(steps, size)).astype("f4") for name, size in (("state", 5), ("action", 2))}
    img = generator.integers(0, 256, (steps, 96, 96, 3), dtype="u1")
    np.savez(path, img=img, episode_ends=np.array([64, steps]), **numbers)


def counted_net(settings: str, pictures: Path) -> Counted:
    """What an update with these settings takes in bf16."""
    data = [f"task.data={pictures}"] if settings.endswith("_image") else []
    overrides = [*settings.split(), *data, "training.precision=bf16"]
    which = track(source_of(overrides).track)
    config = which.config(overrides)
    return count_update(which.build(config), config.training, config.seed)


def main() -> None:
    from results import RESULTS, write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling_model.json")
    arguments = parser.parse_args()
    links, nets, one_card = Links(), dict[str, Any](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        made_up_pictures(pictures := Path(folder) / "pictures.npz")
        for name, settings in NETS.items():
            counted = counted_net(settings, pictures)
            nets[name] = {"settings": settings, **scaling(counted, links)}
            one_card[name] = scaling(counted, Links(cards=1))["gpus"][str(max(GPUS))]
    print(f"{costs_table(nets)}\n\n{rows_table(nets)}")
    write_result(
        arguments.output,
        {
            "measured": False,
            "assumed": {
                "matmul_flops_per_second": FLOPS,
                "memory_bytes_per_second": BYTES,
                "links": asdict(links),
                "backward_of_arithmetic": BACKWARD,
                "parts_when_overlapped": PARTS,
                "dear": DEAR,
            },
            "nets": nets,
            "64_gpus_with_one_card_a_node": one_card,
        },
    )


if __name__ == "__main__":
    main()
