"""From run directories to a comparison: figures by hand, sentences, what is refused and what is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from support.scored_runs import config_of, evaluation_of, write_arms, write_run, write_sweep

from policy_accel.comparison.compare import compare
from policy_accel.comparison.figure import figure_of
from policy_accel.comparison.power import detectable
from policy_accel.comparison.result import Comparison
from policy_accel.comparison.scores import scored_runs
from policy_accel.comparison.statistics import Errors
from policy_accel.comparison.table import text_table
from policy_accel.errors import UserError


def scores(mean: float, seeds: int, episodes: int, *, luck: float = 0.0, rest: float = 0.1, of: int = 0) -> np.ndarray:
    """[S, E] scores with this very mean; the same difficulty for every arm."""
    difficulty = np.random.default_rng(99).normal(0, 0.2, episodes)
    generator = np.random.default_rng(of)
    made = generator.normal(0, luck, (seeds, 1)) + difficulty + generator.normal(0, rest, (seeds, episodes))
    return np.asarray(made - made.mean() + mean)


def compared(folder: Path, arms: dict[str, np.ndarray], **options: Any) -> Comparison:
    return compare(scored_runs(write_arms(folder, arms)), **options)


def test_figures_of_a_small_comparison(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        {"kl": np.array([[0.5, 0.7], [0.9, 0.7]]), "baseline": np.array([[0.1, 0.3], [0.3, 0.5]])},
    )
    assert (found.task, found.track, found.better, found.baseline) == ("pusht_state", "robot", "higher", "baseline")
    assert found.evaluation_seeds == [100, 101]
    assert [(arm.name, arm.runs) for arm in found.arms] == [
        ("baseline", {1: pytest.approx(0.2), 2: pytest.approx(0.4)}),
        ("kl", {1: pytest.approx(0.6), 2: pytest.approx(0.8)}),
    ]
    assert found.arms[1].run_dirs == {1: str(tmp_path / "kl-seed1"), 2: str(tmp_path / "kl-seed2")}
    (difference,) = found.differences
    assert difference.value == pytest.approx(0.4)
    # Runs: (0.02 + 0.02) / 2 times 2 arms / 2 seeds.
    assert difference.error_of_runs == pytest.approx(0.02**0.5)
    assert difference.better
    assert difference.corrected == difference.p


def test_an_interval_beyond_all_scores_is_told(tmp_path: Path) -> None:
    low, middle = np.array([[0.0, 0.1], [0.2, 0.3]]), np.array([[0.5, 0.52], [0.5, 0.52]])
    found = compared(tmp_path / "a", {"baseline": middle, "kl": low})
    (interval,) = [arm.interval for arm in found.arms if arm.name == "kl"]
    assert interval is not None
    assert interval[0] < 0
    assert [note for note in found.notes if "Wide" in note] == [
        "Wide, since of 2 training seeds: an interval knows nothing of the range of all scores (0 to 1), and passes it "
        "for kl."
    ]
    for place, arms in enumerate(({"baseline": middle, "kl": middle}, {"baseline": middle - 1, "kl": low})):
        assert not any("Wide" in note for note in compared(tmp_path / str(place), arms).notes)


def test_the_table_names_the_data_of_a_task_of_any(tmp_path: Path) -> None:
    data = {"name": "custom", "data": "there/cups.zarr.zip", "environment": "mine/Cups-v0"}
    runs = [write_run(tmp_path / arm, config_of(arm, task=data), evaluation_of([0.1, 0.2])) for arm in ("kl", "clts")]
    found = compare(scored_runs(runs))
    assert text_table(found)[0].startswith("score (higher is better) of custom (cups) over 2 episodes;")
    assert (found.task, found.data) == ("custom", "cups")


def test_p_values_are_corrected_for_the_number_of_arms(tmp_path: Path) -> None:
    arms = {name: scores(0.5, 3, 40, luck=0.05, of=place) for place, name in enumerate("abcd")}
    found = compared(tmp_path, arms)
    first, second, third = sorted(found.differences, key=lambda one: one.p or 0.0)
    assert first.p is not None
    assert second.p is not None
    assert third.p is not None
    after = [min(1.0, 3 * first.p), min(1.0, max(3 * first.p, 2 * second.p))]
    assert [first.corrected, second.corrected] == pytest.approx(after)
    assert third.corrected == pytest.approx(min(1.0, max(*after, third.p)))
    for one in found.differences:  # three arms of three seeds, 40 episodes: the first step of Holm
        errors = Errors(one.error_of_runs, one.error_of_episodes, 4, 39)
        assert one.detectable == pytest.approx(detectable(errors, 0.05 / 3))


def test_what_is_found_is_found_after_correction(tmp_path: Path) -> None:
    """Of ten arms without a difference, one has p below 0.05 and is not found."""
    arms = {f"arm{place}": scores(0.5, 5, 30, of=place) for place in range(10)}
    arms["arm9"] = scores(0.53, 5, 30, of=9)
    found = compared(tmp_path, arms).differences[-1]
    assert found.p is not None
    assert 0.005 < found.p < 0.05
    assert not found.found


def test_a_difference_of_003_is_found_where_it_can_be(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        {
            "baseline": scores(0.70, 5, 400, luck=0.003, rest=0.05, of=1),
            "kl": scores(0.73, 5, 400, luck=0.003, rest=0.05, of=2),
            "fdm": scores(0.70, 5, 400, luck=0.003, rest=0.05, of=3),
        },
    )
    kl, fdm = found.differences
    assert kl.found
    assert kl.interval is not None
    assert kl.sentence == f"kl is better than baseline by 0.030 [{kl.interval[0]:.3f}, {kl.interval[1]:.3f}]."
    assert not fdm.found
    assert fdm.detectable is not None
    assert fdm.detectable < 0.03
    assert fdm.sentence.endswith(f"a true difference of {fdm.detectable:.3f} would be found four times in five.")
    assert found.summary == (
        "Better than baseline: kl. No difference of any other arm from baseline can be told; one larger than "
        f"{fdm.detectable:.3f} would be (four times in five)."
    )


def test_or_declared_unseeable_with_the_reason(tmp_path: Path) -> None:
    lucky = {"baseline": scores(0.7, 3, 400, luck=0.05, of=1), "kl": scores(0.73, 3, 400, luck=0.05, of=2)}
    (one,) = compared(tmp_path / "lucky", lucky).differences
    assert not one.found
    assert one.seeds_needed is not None
    assert one.seeds_needed > 3
    assert one.episodes_needed is None
    assert one.sentence.endswith(
        f"One of 0.03 could not be seen (training seeds are what it lacks most): it would take {one.seeds_needed} "
        "training seeds with 400 episodes each; with 3 seeds, 100,000 episodes would not do."
    )
    noise = np.random.default_rng(5).normal(0, 0.5, (2, 1, 40))
    few = {"baseline": scores(0.7, 4, 40) + noise[0], "kl": scores(0.73, 4, 40) + noise[1]}
    (one,) = compared(tmp_path / "few", few).differences
    assert one.episodes_needed is not None
    assert "(episodes are what it lacks most)" in one.sentence
    assert f"or {one.episodes_needed:,} episodes with 4 seeds." in one.sentence


def test_one_training_seed_says_so(tmp_path: Path) -> None:
    arms = {"baseline": scores(0.7, 1, 50, of=1), "kl": scores(0.9, 1, 50, of=2), "fdm": scores(0.71, 1, 50, of=3)}
    found = compared(tmp_path / "one", arms)
    kl, fdm = found.differences
    assert kl.found
    assert kl.sentence.endswith("in these very networks.")
    assert "with one training seed none can be told from the luck of training" in fdm.sentence
    assert found.notes == [
        "One training seed each: intervals and p-values are of these very networks, and know nothing of the luck of "
        "training; another seed may turn them over."
    ]
    mixed = compared(tmp_path / "mixed", {**arms, "baseline": scores(0.7, 3, 50, luck=0.05, of=1)})
    assert mixed.notes[0].startswith("One training seed alone: kl, fdm.")
    assert mixed.differences[1].sentence.endswith("one of the two has a single training seed; train more.")


def test_a_cap_that_never_ended_is_told(tmp_path: Path) -> None:
    arms = {"baseline": scores(0.7, 2, 20), "fdm": scores(0.7, 2, 20, of=1)}
    runs = write_arms(tmp_path, arms)
    for seed, (updates, run) in enumerate(((1000, runs[2]), (999, runs[3])), 1):
        config = config_of("fdm", seed, acceleration__momentum__cap_warmup=updates)
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    told = "FDM's cap on the loss weight was still on when these were scored: fdm"
    assert [note for note in compare(scored_runs(runs[:3])).notes if note.startswith(told)] == [
        f"{told}; train for more than 1000 updates (acceleration.momentum.cap_warmup), or lower that."
    ]
    assert not any("cap" in note for note in compare(scored_runs([*runs[:2], runs[3]])).notes)


def test_images_are_compared_over_training_seeds(tmp_path: Path) -> None:
    """Student's t test of two samples, lower being better."""
    values = {"baseline": [9.0, 9.4, 9.1], "kl": [7.0, 7.1, 6.6], "fdm": [9.2, 8.9, 9.3]}
    paths = []
    for method, distances in values.items():
        for seed, distance in enumerate(distances):
            measures = {"fid": {"value": distance, "floor": 2.0, "better": "lower"}}
            made = {"step": 1000, "score": 2 / distance, "score_from": "fid", "images": 9, "score_images": 9}
            made |= {"measures": measures}
            paths.append(write_run(tmp_path / f"{method}{seed}", config_of(method, seed, track="images"), made))
    found = compare(scored_runs(paths, measure="fid"), measure="fid", difference=None)
    kl, fdm = found.differences
    assert kl.p == pytest.approx(scipy.stats.ttest_ind(values["kl"], values["baseline"]).pvalue)
    assert (kl.found, kl.better, found.better, found.evaluation_seeds) == (True, True, "lower", [])
    assert kl.sentence.startswith("kl is better than baseline by 2.267 [")
    assert not fdm.found
    alone = compare(scored_runs(paths[::3]), difference=0.03)
    assert alone.differences[0].interval is None
    assert "nothing tells their difference of" in alone.differences[0].sentence
    assert alone.summary == "Nothing can be told: there is one training seed each."
    assert "episodes" not in "\n".join(text_table(alone))
    assert text_table(alone)[0].startswith("score = floor / fid of 9 images (higher is better) of ")
    assert not any("FEW" in note for note in found.notes)
    assert not any("FEW" in note for note in alone.notes)


def test_two_training_seeds_of_images_and_few_real_ones_are_told(tmp_path: Path) -> None:
    paths = []
    few = {"value": 9.0, "floor": 2.0, "better": "lower", "floor_samples": 30, "dimension": 320}
    for method, score in (("baseline", 0.4), ("kl", 0.8)):
        for seed in (0, 1):
            made = {"step": 9, "score": score + seed / 1000, "score_from": "fd", "images": 9, "score_images": 9}
            made |= {"measures": {"fd": few}}
            paths.append(write_run(tmp_path / f"{method}{seed}", config_of(method, seed, track="images"), made))
    found = compare(scored_runs(paths))
    assert found.differences[0].found
    assert found.differences[0].sentence.endswith(
        "Two training seeds tell little of chance: add a third before you rely on it."
    )
    assert any(note.startswith("FEW REAL IMAGES: the floor of fd in these scores is of 30,") for note in found.notes)
    assert not any("FEW" in note for note in compare(scored_runs(paths, measure="fd"), measure="fd").notes)


def test_a_metric_that_does_not_say_what_is_better(tmp_path: Path) -> None:
    """The distance of an environment, of which less is better, say: higher and lower are all that is known."""
    paths = []
    for method, mean in (("baseline", 5.0), ("kl", 3.0), ("fdm", 9.0)):
        for seed in (1, 2, 3):
            made = evaluation_of([1.0] * 4)
            for place, row in enumerate(made["episodes"]):
                row["metrics"] = {"distance": mean + 0.1 * place + 0.01 * seed}
            paths.append(write_run(tmp_path / f"{method}{seed}", config_of(method, seed), made))
    found = compare(scored_runs(paths, measure="distance"), measure="distance", difference=None)
    assert (found.better, [one.better for one in found.differences]) == ("", [None, None])
    assert [one.sentence.partition(" [")[0] for one in found.differences] == [
        "kl is lower than baseline by 2.000",
        "fdm is higher than baseline by 4.000",
    ]
    assert found.summary == "Higher than baseline: fdm. Lower than baseline: kl."
    assert text_table(found)[0].startswith("distance of pusht_state over 4 episodes;")
    assert figure_of(found).axes[0].get_xlabel() == "distance"


def test_measures_of_other_numbers_of_images_are_refused(tmp_path: Path) -> None:
    """The score is taken of equally many images whatever their number."""
    paths = []
    for method, images in (("baseline", 50), ("kl", 60)):
        measures = {"fid": {"value": float(images), "floor": 2.0, "better": "lower"}}
        made = {"step": 1000, "score": 0.5, "images": images, "score_images": 9, "measures": measures}
        paths.append(write_run(tmp_path / method, config_of(method, track="images"), made))
    assert compare(scored_runs(paths)).differences[0].value == 0.0
    with pytest.raises(UserError, match=r"images=50 and .* images=60"):
        compare(scored_runs(paths, measure="fid"), measure="fid")


def test_what_is_left_out_and_what_differs_is_noted(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", {"a": np.ones((2, 4)), "b": np.ones((2, 4)) / 2}, waiting=["a-seed3"])
    shorter = evaluation_of([0.5, 0.6], start_seed=102, failed_seeds=[103])
    lone = write_run(tmp_path / "c", config_of("c", 1, training__batch_size=64, acceleration__x=1), shorter)
    found = compare(scored_runs([sweep, lone]))
    assert found.evaluation_seeds == [102, 103]
    assert found.notes == [
        "Left out, without a score: a-seed3 (not begun).",
        "No arm is called baseline, so a is taken for it; --baseline names another.",
        "Only the 2 evaluation seeds that all runs share count; some runs have 4.",
        "Episodes that failed twice and count as score 0: 1.",
        "One training seed alone: c. Its interval knows nothing of the luck of training; in a difference it is taken "
        "to vary as the other arm does.",
        "Wide, since of 2 episodes: an interval knows nothing of the range of all scores (0 to 1), and passes it for "
        "c.",
        "The arms also differ in training.batch_size (null of a, 64 of c).",
    ]


def two(folder: Path, second: dict[str, Any], **evaluation: Any) -> list[Path]:
    made = evaluation_of([0.5, 0.6], **evaluation)
    return [
        write_run(folder / "one", config_of("baseline"), evaluation_of([0.5, 0.7])),
        write_run(folder / "two", second, made),
    ]


def test_a_score_of_the_training_is_one_of_the_main_average(tmp_path: Path) -> None:
    compare(scored_runs(two(tmp_path, config_of("kl"), average="ema")))


@pytest.mark.parametrize(
    ("settings", "evaluation", "said"),
    [
        (
            {"task__name": "lift"},
            {},
            r"one is of task pusht_state \(robot\) and .*two of task lift \(robot\), .* --task",
        ),
        ({}, {"noise_seed": 1}, r"one was scored with noise_seed=0 and .*two with noise_seed=1; score all in one way"),
        ({}, {"average": "ema_0.1"}, r"one was scored with average=ema and .*two with average=ema_0\.1"),
        ({}, {"max_steps": 200}, "max_steps=300 and .* max_steps=200"),
        ({}, {"score_from": "return"}, "score_from=max_reward and .* score_from=return"),
        ({}, {"sampling_steps": 4}, "sampling_steps=8 and .* sampling_steps=4"),
        ({}, {"step": 500}, "step=1000 and .* step=500"),
        ({}, {"start_seed": 7}, "share no evaluation seed"),
        ({"task__environment_options": {"dark": True}}, {}, "task.environment_options.dark=None and .*=True"),
    ],
)
def test_runs_that_cannot_be_compared(
    settings: dict[str, Any], evaluation: dict[str, Any], said: str, tmp_path: Path
) -> None:
    runs = scored_runs(two(tmp_path, config_of("kl", **settings), **evaluation))
    with pytest.raises(UserError, match=said):
        compare(runs)


def test_sampling_and_length_may_be_what_is_compared(tmp_path: Path) -> None:
    """Set in the runs and so scored: arms; the same in an evaluation alone is refused above."""
    first = write_run(tmp_path / "1", config_of(), evaluation_of([0.5, 0.7]))
    fewer = write_run(tmp_path / "2", config_of(sampling__steps=2), evaluation_of([0.4, 0.7], sampling_steps=2))
    longer = write_run(tmp_path / "3", config_of(training__steps=2000), evaluation_of([0.4, 0.7], step=2000))
    found = compare(scored_runs([first, fewer, longer]))
    assert [arm.name for arm in found.arms] == [
        "baseline sampling.steps=8 training.steps=1000",
        "baseline sampling.steps=2 training.steps=1000",
        "baseline sampling.steps=8 training.steps=2000",
    ]


def test_too_few_arms_and_a_run_twice(tmp_path: Path) -> None:
    paths = write_arms(tmp_path, {"kl": np.ones((2, 3))})
    begun = write_run(tmp_path / "begun", config_of("fdm"))
    with pytest.raises(UserError, match=r"are all of one arm, kl \(1 more without one: .*begun has no score yet\)"):
        compare(scored_runs([*paths, begun]))
    with pytest.raises(UserError, match=r"none of the runs has a score"):
        compare(scored_runs([begun]))
    again = write_run(tmp_path / "again", config_of("kl", 2), evaluation_of([1.0, 1.0, 1.0]))
    other = write_run(tmp_path / "other", config_of("fdm", 2), evaluation_of([1.0, 1.0, 1.0]))
    with pytest.raises(UserError, match=r"kl-seed2 and .*again are the same run twice \(kl, seed 2\)"):
        compare(scored_runs([*paths, again, other]))
    with pytest.raises(UserError, match=r"--baseline 'kll' is no arm of these runs; did you mean 'kl'\?"):
        compare(scored_runs([*paths, other]), "kll")


def test_as_json(tmp_path: Path) -> None:
    found = compared(tmp_path, {"baseline": scores(0.5, 2, 10), "kl": scores(0.6, 2, 10, of=1)})
    again = json.loads(json.dumps(found.to_json()))
    assert again["arms"][0]["runs"].keys() == {"1", "2"}
    assert again["differences"][0]["sentence"] == found.differences[0].sentence
    assert again["summary"] == found.summary
    assert found.arm("kl") is found.arms[1]
