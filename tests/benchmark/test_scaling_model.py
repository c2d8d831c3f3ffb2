"""The paper model of many GPUs against sums done by hand, its record and its page."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from policy_accel.benchmark.counting import Counted

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "explanation" / "many_gpus.md").read_text()
RECORD = json.loads((REPOSITORY / "benchmarks" / "results" / "scaling_model.json").read_text())
NETS = RECORD["nets"]
TEN = Counted(10, 8, 989e6, 100, 100, 40, 0, 0)
"""Ten weights; eight rows take a microsecond of arithmetic."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return importlib.import_module("scaling_model")


def test_a_ring_by_hand(model: ModuleType) -> None:
    """Two GPUs send the message once, in two steps; sixteen leave their nodes four times, by all cards."""
    links = model.Links()
    assert model.ring(450e9, 2, links) == pytest.approx(1 + 2 * 3.4e-6)
    assert model.ring(450e9, 8, links) == pytest.approx(2 * 7 / 8 + 14 * 3.4e-6)
    assert model.ring(400e9, 16, links) == pytest.approx(2 * 15 / 16 + 26 * 3.4e-6 + 4 * 14e-6)
    assert model.ring(50e9, 64, model.Links(cards=1)) == pytest.approx(2 * 63 / 64 + 110 * 3.4e-6 + 16 * 14e-6)
    assert links.rate(9) == 400e9


def test_a_tree_by_hand(model: ModuleType) -> None:
    """Along seven GPUs and up three levels of eight nodes, and down again."""
    links = model.Links()
    assert model.tree(0, 8, links) == pytest.approx(2 * 7 * 0.6e-6)
    assert model.tree(100e9, 64, links) == pytest.approx(2 * (7 * 0.6e-6 + 3 * 5e-6 + 1))
    assert model.tree(0, 9, links) == pytest.approx(2 * (7 * 0.6e-6 + 5e-6))


def test_the_quicker_way_counts(model: ModuleType) -> None:
    links = model.Links()
    assert model.all_reduce(4, 64, links) == model.tree(4, 64, links) < model.ring(4, 64, links)
    assert model.all_reduce(1e9, 64, links) == model.ring(1e9, 64, links) < model.tree(1e9, 64, links)


def test_an_exchange_copies_twice_and_sums_the_loss_too(model: ModuleType) -> None:
    """Each number is read and written as it is and as it goes, twice."""
    links, numbers = model.Links(), 10**8
    for width, passed in ((4, 16), (2, 12)):
        sums = model.ring(width * numbers, 8, links) + model.tree(4, 8, links)
        assert model.exchange(numbers, width, 8, links) == pytest.approx(numbers * passed / 4.8e12 + sums)


def test_what_the_backward_pass_can_hide(model: ModuleType) -> None:
    """All but the last of four parts; of a backward pass of no length nothing."""
    links, numbers = model.Links(), 10**8
    whole, part = (model.all_reduce(size * numbers, 8, links) for size in (4, 1))
    exchange = model.exchange(numbers, 4, 8, links)
    others = exchange - whole
    assert model.overlapped(numbers, 4, 8, links, 1.0) == pytest.approx(others + part)
    assert model.overlapped(numbers, 4, 8, links, 0.0) == exchange
    assert model.overlapped(numbers, 4, 8, links, part) == pytest.approx(others + 4 * part - 0.75 * part)


def test_costs_of_a_net_of_ten_weights(model: ModuleType) -> None:
    found = model.scaling(TEN, model.Links())
    memory, seconds = 240 / 4.8e12, model.exchange(10, 4, 8, model.Links())
    costs = found["gpus"]["8"]["fp32"]
    assert found["floor"]["seconds"] == pytest.approx(1e-6 + memory)
    assert costs["exchange_seconds"] == seconds
    assert costs["adds"] == pytest.approx(seconds / (1e-6 + memory))
    assert costs["times"] == pytest.approx((1e-6 + memory) / (1e-6 / 8 + memory + seconds))


def test_rows_from_which_the_exchange_adds_little(model: ModuleType) -> None:
    rows = model.scaling(TEN, model.Links())["rows_a_gpu_below_dear"]["16"]["bf16"]

    def adds(count: int) -> float:
        more = replace(TEN, rows=count, flops=TEN.flops * count / TEN.rows)
        cost: float = model.scaling(more, model.Links())["gpus"]["16"]["bf16"]["adds"]
        return cost

    assert adds(rows) <= 0.1 < adds(rows - 1)
    enough = replace(TEN, rows=rows, flops=TEN.flops * rows / TEN.rows)
    assert model.scaling(enough, model.Links())["dear_from_gpus"]["bf16"] > 16


@pytest.mark.parametrize(("net", "recipe"), [("small U-Net", "small"), ("reference U-Net", "diffusion_policy")])
def test_the_record_has_what_is_counted(net: str, recipe: str, counted_recipe: Callable[[str], Counted]) -> None:
    assert NETS[net]["settings"] == f"recipe={recipe}"
    assert NETS[net]["counted"] == asdict(counted_recipe(recipe))


def test_the_record_follows_from_its_counts(model: ModuleType) -> None:
    assert RECORD["assumed"]["links"] == json.loads(json.dumps(asdict(model.Links())))
    assert {name: net["settings"] for name, net in NETS.items()} == model.NETS
    for name, net in NETS.items():
        counted = Counted(**net["counted"])
        assert {"settings": net["settings"], **model.scaling(counted, model.Links())} == net
        one_card = model.scaling(counted, model.Links(cards=1))["gpus"]["64"]
        assert RECORD["64_gpus_with_one_card_a_node"][name] == one_card


def test_the_page_has_the_tables_and_says_that_nothing_was_measured(model: ModuleType) -> None:
    assert model.costs_table(NETS) in PAGE
    assert model.rows_table(NETS) in PAGE
    assert "**Nothing of it was measured.**" in PAGE


def sentence(text: str) -> bool:
    return text in " ".join(PAGE.split())


def test_figures_in_the_text_of_the_page() -> None:
    costs: dict[str, Any] = {name: net["gpus"] for name, net in NETS.items()}
    assert all(net["dear_from_gpus"] == {"fp32": 2, "bf16": 2} for net in NETS.values())
    assert sentence("more than 10 % from two GPUs on, for each of the four nets and in either precision")
    one_card = RECORD["64_gpus_with_one_card_a_node"]["reference U-Net"]["fp32"]["exchange_seconds"]
    eight = costs["reference U-Net"]["64"]["fp32"]["exchange_seconds"]
    assert sentence(f"{1e3 * one_card:.2g} ms instead of {1e3 * eight:.2g}")
    most = max(cost["times"] for by in costs.values() for pair in by.values() for cost in pair.values())
    assert sentence(f"never more than {most:.2g} times as fast")
