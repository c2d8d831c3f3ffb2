"""The scores on the pages of the papers' methods are those of the records."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.pages import REPOSITORY, page, record, result, rows, sentences

PAPERS = ("immiscible", "kl", "fdm", "consistency")
EIGHT = record("pusht_keypoints-compare-2026-11-29")
TWO = record("pusht_keypoints-compare-2_evaluations-2026-11-29")
TOY = record("two_modes-time-to-score-2026-11-29")
METHODS = {row["method"]: row for row in result("pusht_methods_cpu")["methods"]}


def shown(value: float, interval: list[float], digits: int = 2, sign: str = "") -> str:
    low, high = interval
    return f"{value:{sign}.{digits + (digits == 2)}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def three_seeds(method: str) -> list[str]:
    cells = []
    for figures in (EIGHT, TWO):
        score, difference = figures[f"score, {method}"], figures.get(f"score, {method} less baseline")
        cells.append(shown(score["value"], score["interval"]))
        cells.append(shown(difference["value"], difference["interval"], sign="+") if difference else "")
    return cells


def one_seed(method: str) -> list[str]:
    row = METHODS[method]
    scores = {(score["sampler"], score["evaluations"]): score for score in row["scores"]}
    kinds = [scores.get(kind) for kind in (("ddim", 2), ("ddim", 8), ("ddpm", 100))]
    intervals = [score and [f"{bound:.2f}" for bound in score["score_interval"]] for score in kinds]
    cells = [
        f"{score['score']:.2f} [{', '.join(interval)}]" if score and interval else ""
        for score, interval in zip(kinds, intervals, strict=True)
    ]
    return [*cells, f"{row['loss_last_log']:.4f}"]


def toy(method: str) -> list[str]:
    score = TOY[f"two_modes, score at 1600 updates, {method}"]
    difference = TOY.get(f"two_modes, score at 1600 updates, {method} less baseline")
    compared = shown(difference["value"], difference["interval"], 3, "+") if difference else ""
    return [shown(score["value"], score["interval"], 3), compared]


def images(base: str) -> Callable[[str], list[str]]:
    found = result("image_methods_16px_cpu")["tables"][base]["final"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        label = importlib.import_module("image_methods_table").label
    ends = {label(arm, list(found)): end for arm, end in found.items()}

    def cells(arm: str) -> list[str]:
        distance, ratio = (
            f"{of['mean']:.2f} [{of['interval'][0]:.2f}, {of['interval'][1]:.2f}]"
            for of in (ends[arm]["distance"], ends[arm]["over_first"])
        )
        return [distance, "" if arm == next(iter(ends)) else ratio]

    return cells


TABLES: dict[str, Callable[[str], list[str]]] = {
    "| Push-T, 3 training seeds": three_seeds,
    "| Push-T, 1 training seed |": one_seed,
    "| two-mode toy, 3 training seeds": toy,
    "| `ddpm`, CIFAR-10 at 16 x 16, 3 training seeds": images("ddpm"),
    "| `default`, CIFAR-10 at 16 x 16, 3 training seeds": images("default"),
    "| `edm`, CIFAR-10 at 16 x 16, 3 training seeds": images("edm"),
}
ABSENT = {
    ("immiscible", "| two-mode toy, 3 training seeds"),
    *((paper, "| `default`, CIFAR-10 at 16 x 16, 3 training seeds") for paper in ("kl", "fdm", "consistency")),
    ("kl", "| `edm`, CIFAR-10 at 16 x 16, 3 training seeds"),
    ("consistency", "| `edm`, CIFAR-10 at 16 x 16, 3 training seeds"),
}


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("header", TABLES)
def test_scores_are_those_of_the_records(name: str, header: str) -> None:
    """Every row, the baseline's first."""
    text = page(f"explanation/{name}")
    assert (header in text) != ((name, header) in ABSENT)
    if header not in text:
        return
    table = rows(text, header)
    assert table[0][0] in ("`baseline`", "`edm`")
    assert len(table) >= 2
    for method, *cells in table:
        assert cells == TABLES[header](method.strip("`")), method


def test_what_scaling_the_images_saves() -> None:
    of = result("image_methods_16px_cpu")["tables"]["ddpm"]["speed_ups"]
    saved = next(iter(of.values()))["immiscible_scaling"]["samples"]
    low, high = saved["interval"]
    said = f"{saved['mean']:.2f} [{low:.2f}, {high:.2f}] times fewer images for the baseline's distance"
    assert said in sentences(page("explanation/immiscible"))
    assert f"{saved['mean']:.2f} times fewer images" in page("how_to/choose_a_method")


def test_the_toy_of_unequal_modes() -> None:
    arms = [result(f"two_mode_policy{kind}_cpu")["arms"] for kind in ("_uniform", "")]
    table = rows(page("explanation/immiscible"), "| two modes | uniform, 1")
    assert len(table) == 6
    for name, *cells in table:
        means = [(of[name]["mean"], steps) for of in arms for steps in ("1", "10")]
        assert cells == [f"{m['probability_error'][k]:.3f}, {m['minority_ratio'][k]:.2f}" for m, k in means], name


def with_muon(arm: str) -> dict[int, str]:
    """Scores of an arm by its evaluations, of an even grid."""
    found = [row for row in result("few_step_methods_muon_cpu")["arms"] if row["arm"] == arm]
    return {
        row["network_evaluations_a_chunk"]: f"{row['score']:.3f}"
        for row in found
        if row["sampling"].startswith("--sampling-steps")
    }


def test_what_is_said_of_muon() -> None:
    base, kl, fdm = with_muon("baseline"), with_muon("kl"), with_muon("fdm")
    decay, curriculum = with_muon("momentum_decay"), with_muon("clts")
    assert f"it scored {kl[2]} with two evaluations, where the baseline scored {base[2]}" in sentences(
        page("explanation/kl")
    )
    assert "(250 of its own)" in sentences(page("explanation/kl"))
    assert {row["updates"] for row in result("few_step_methods_muon_cpu")["arms"] if row["arm"] == "kl"} == {250}
    assert (
        f"it scored {fdm[2]} with two evaluations and {fdm[4]} with four, the baseline {base[2]} and {base[4]}"
        in sentences(page("explanation/fdm"))
    )
    assert (
        f"momentum decay scored {decay[1]} with one evaluation where the baseline scored {base[1]}, and {decay[2]} "
        f"with two, where it scored {base[2]}; the curriculum {curriculum[1]} and {curriculum[2]}"
        in sentences(page("explanation/consistency"))
    )


def test_what_is_said_of_images_and_cameras() -> None:
    runs = {(row["arm"], row["seed"]): row["final"]["measures"]["fd_random_conv"]["value"] for row in _image_runs()}
    base, assigned = (runs["cifar10 " + arm, 0] for arm in ("baseline", "immiscible"))
    assert f"fell from {base:.2f} to {assigned:.2f} with assignment" in sentences(page("explanation/immiscible"))
    mnist = [runs["mnist baseline", seed] for seed in (0, 1)]
    curriculum = f"{runs['mnist clts', 0]:.3f} with the curriculum"
    assert f"{curriculum}, where two seeds of the baseline had {mnist[0]:.3f} and {mnist[1]:.3f}" in sentences(
        page("explanation/consistency")
    )
    costs = {name: cost["cpu_milliseconds"] for name, cost in result("camera_times_cpu")["costs"].items()}
    times = costs["64 x 4 independent"] / costs["64 x 1"]
    assert f"Four times of each encoded frame cost {times:.1f} updates" in sentences(page("explanation/kl"))
    losses = {name: run["0"]["validation_loss"] for name, run in result("camera_times_cpu")["runs"].items()}
    for batch in (16, 64):
        assert losses[f"{batch} x 4 independent"] >= losses[f"{batch} x 1"]


def _image_runs() -> Iterator[dict[str, Any]]:
    for data in ("mnist", "cifar10"):
        for row in result(f"image_methods_{data}_cpu")["runs"]:
            yield row | {"arm": f"{data} {row['arm']}"}


def test_p_values_of_kl() -> None:
    names = [
        figures[f"score, {arm} less baseline"]["name"] for figures in (EIGHT, TWO) for arm in ("kl", "kl_independent")
    ]
    p = [re.findall(r"p = ([\d.]+)", name)[0] for name in names]
    assert min(map(float, p)) > 0.05
    assert f"($p$ = {p[0]}, {p[1]}, {p[2]} and {p[3]})" in sentences(page("explanation/kl"))


def test_what_fewer_evaluations_cost_on_the_page_of_methods() -> None:
    """Of Muon's policies after 1,500 updates: two on the later grid, and one of a student, less eight."""
    ladder = {row["rung"]: row["score"] for row in result("pusht_speedrun_cpu")["rungs"]}
    eight = ladder["Muon, 1,500 updates (recipe=fast)"]
    two, one = eight - ladder["+ grid (99, 25)"], eight - ladder["+ distilled, 1 evaluation"]
    assert f"two evaluations cost {two:.2f}, one {one:.2f}" in page("how_to/choose_a_method")


@pytest.mark.parametrize("name", PAPERS)
def test_updates_and_episodes_are_those_of_the_records(name: str) -> None:
    said = sentences(page(f"explanation/{name}"))
    record = json.loads((REPOSITORY / "benchmarks" / "records" / "pusht_keypoints-compare-2026-11-29.json").read_text())
    (steps,) = re.findall(r"training\.steps=(\d+)", record["command"])
    assert len(record["seeds"]) == 3
    assert f"{int(steps):,} updates, three training seeds, {record['episodes']} episodes" in said
    methods = result("pusht_methods_cpu")
    assert f"{methods['updates']:,} updates, **one training seed**, {methods['episodes']} episodes" in said
    if name == "immiscible":
        assert f"two training seeds, {result('two_mode_policy_cpu')['steps']:,} updates:" in said
        assert f"**one seed** of {result('image_methods_cifar10_cpu')['runs'][0]['updates']} updates" in said
    else:
        assert "On the toy with two modes, after 1,600 updates:" in said  # as the names of the figures say
