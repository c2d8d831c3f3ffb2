"""The figures of docs/explanation/evaluation.md are those of the code and of the records."""

from __future__ import annotations

import re

import pytest
from scipy import integrate, stats
from support.pages import page, record, result, rows, sentences

from policy_accel.comparison.power import Design, detectable
from policy_accel.evaluation.statistics import CONFIDENCE, RESAMPLES, wilson_interval

TEXT = page("explanation/evaluation")
SAID = sentences(TEXT)


def test_intervals_of_a_success_rate() -> None:
    header = "| successes |"
    names = [cell.strip() for cell in TEXT[TEXT.index(header) :].split("\n", 1)[0].strip("|").split("|")[1:]]
    (table,) = rows(TEXT, header)
    assert len(names) == 5
    for name, cell in zip(names, table[1:], strict=True):
        low, high = wilson_interval(*map(int, re.findall(r"\d+", name)))
        assert cell == f"[{low:.2f}, {high:.2f}]"
    low, high = wilson_interval(10, 10)
    assert f"Wilson's interval of them is [{low:.2f}, {high:.2f}]." in SAID
    low, high = wilson_interval(45, 50)
    assert f"50 episodes, the usual number, leave {high - low:.2f} open" in SAID
    less, more = wilson_interval(180, 200)
    assert (more - less) / (high - low) == pytest.approx(0.5, abs=0.02)
    assert f"of {100 * CONFIDENCE:.0f} % unless" in SAID
    assert f"{RESAMPLES:,} resamples" in SAID


def test_what_can_be_seen() -> None:
    """The table and the sentence about it, of the spreads that the page on comparing names."""
    design = Design(0.01**2, 0.15**2, 2 * 0.05**2)
    seen = {(seeds, n): detectable(design.errors(seeds, n), 0.05 / 5) for seeds in (3, 5, 10) for n in (50, 200, 1000)}
    table = rows(TEXT, "| detectable | 50")
    assert len(table) == 3
    for name, *cells in table:
        assert cells == [f"{seen[int(name.split()[0]), n]:.3f}" for n in (50, 200, 1000)]
    assert f"With 200 episodes three seeds see a difference of {seen[3, 200]:.3f}, five see {seen[5, 200]:.3f}." in SAID


def test_what_the_best_of_ten_owes_to_luck() -> None:
    largest = integrate.quad(lambda x: 10 * x * stats.norm.pdf(x) * stats.norm.cdf(x) ** 9, -8, 8)[0]
    assert f"a best one that is {largest * 0.2 / 50**0.5:.3f} above the truth on average" in SAID


def test_the_coverage_is_as_recorded() -> None:
    plain = {"form": "normal", "unsteady": None, "alike": 0.0, "arms": 6}
    designs = [
        row
        for row in result("compare_coverage")["no_difference"]
        if plain.items() <= row["design"].items() and row["design"]["seeds"] in ([2], [3])
    ]
    for rates, sentence in (
        ([row["plain_percentile_coverage"]["runs_and_episodes_resampled"] for row in designs], "in {} to {} % of comp"),
        ([row["separate"]["coverage_of_means"] for row in designs], "the two levels cover it in {} to {} %"),
    ):
        assert sentence.format(*(f"{100 * rate:.0f}" for rate in (min(rates), max(rates)))) in SAID


def test_scores_are_as_recorded() -> None:
    runs = result("pusht_real_4000_updates_cpu")["runs"]
    scores = [row["score"] for run in runs for row in run["scores_100_episodes"] if row["evaluations_a_chunk"] == 8]
    assert f"scored {scores[0]:.3f}, {scores[1]:.3f} and {scores[2]:.3f} over" in SAID
    assert f"the difference of {max(scores) - min(scores):.3f}." in SAID
    intervals = [row["score_interval"] for run in runs for row in run["scores_100_episodes"]]
    halves = [(high - low) / 2 for low, high in intervals[1::2]]
    assert f"each about ± {sum(halves) / len(halves):.2f} " in SAID
    methods = {row["method"]: row for row in result("pusht_methods_cpu")["methods"]}
    figures = [
        (f"{methods[name]['loss_last_log']:.4f}", f"{score['score']:.2f}")
        for name in ("immiscible", "baseline")
        for score in methods[name]["scores"]
        if (score["sampler"], score["evaluations"]) == ("ddim", 8)
    ]
    (loss, score), (plain_loss, plain_score) = figures
    assert f"loss of {loss} and a score of {score}, where the baseline has {plain_loss} and {plain_score}" in SAID
    door = {(row["optimizer"], row["updates"]): row for row in result("optimizers_adroit_door_cpu")["runs"]}
    muon, adamw = door["muon", 800], door["adamw", 800]
    assert (
        f"{muon['held_out_loss']:.4f} to {adamw['held_out_loss']:.4f}, and its score too, {muon['score']:.3f} to "
        f"{adamw['score']:.3f}" in SAID
    )
    ladder = record("pusht_keypoints-ladder-2026-11-29")
    published, tuned = (
        ladder[f"score, {name} (1500 updates, {evaluations} evaluations a chunk)"]["value"]
        for name, evaluations in (("published settings, 1,500 updates", 16), ("AdamW, 1,500 updates", 8))
    )
    assert f"score {published:.3f} on the small net and tuned ones {tuned:.3f}" in SAID
