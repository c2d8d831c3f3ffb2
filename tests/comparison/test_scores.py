"""What is read of run directories, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.scored_runs import config_of, evaluation_of, write_arms, write_run, write_sweep

from policy_accel.comparison.alike import check_alike
from policy_accel.comparison.made_of import MadeOf
from policy_accel.comparison.scores import STEPS, scored_runs
from policy_accel.errors import UserError


def test_runs_and_sweeps_in_their_order_each_once(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", {"baseline": np.array([[0.5, 1.0], [0.25, 0.75]])}, waiting=["baseline-seed9"])
    alone = write_run(tmp_path / "kl", config_of("kl", 3), evaluation_of([0.0, 1.0]))
    begun = write_run(tmp_path / "begun", config_of("kl", 4))
    runs = scored_runs([alone, sweep, sweep / "baseline-seed2", begun])
    assert [run.run_dir.name for run in runs] == ["kl", "baseline-seed1", "baseline-seed2", "baseline-seed9", "begun"]
    assert [(run.arm, run.seed, run.score) for run in runs] == [
        ("kl", 3, 0.5),
        ("baseline", 1, 0.75),
        ("baseline", 2, 0.5),
        ("", None, None),
        ("kl", 4, None),
    ]
    assert runs[1].scores == {100: 0.5, 101: 1.0}
    assert [run.missing for run in runs[3:]] == ["not begun", "no score yet"]


def test_students_of_one_teacher_s_seeds_are_one_arm(tmp_path: Path) -> None:
    """And those of another teacher are another one."""
    runs = []
    for teacher in ("runs/muon-seed{}", "runs/adamw-seed{}"):
        for seed in (1, 12):
            config = config_of("baseline", seed) | {"distillation": {"teacher": teacher.format(seed)}}
            runs.append(write_run(tmp_path / f"{len(runs)}", config, evaluation_of([0.5])))
    for seed in (1, 2):  # which is not that of the teacher
        config = config_of("baseline", seed) | {"distillation": {"teacher": f"runs/muon-seed{seed}2"}}
        runs.append(write_run(tmp_path / f"other{seed}", config, evaluation_of([0.5])))
    first, second, third, fourth, *others = (run.arm for run in scored_runs(runs))
    assert first == second
    assert third == fourth
    assert len({first, third, *others}) == 4


def test_what_guided_the_images_makes_the_arm(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        for name, guide in (("own", None), ("led", {"run": f"runs/bad-seed{seed}", "step": 5, "average": "ema"})):
            record = evaluation_of([0.5], guidance=2.0, guide=guide)
            paths.append(write_run(tmp_path / f"{name}{seed}", config_of(seed=seed), record))
    plain, led, *others = [run.arm for run in scored_runs(paths)]
    assert others == [plain, led]
    assert led == "baseline guide=bad-seed 5 ema"


def test_longer_and_fine_tuned_runs_are_arms_of_their_own(tmp_path: Path) -> None:
    """A run that was extended had another learning rate; weights to begin with are told apart but for the seed."""
    tuned = [config_of("baseline", seed) | {"init_from": f"runs/first-seed{seed}"} for seed in (1, 2)]
    configs = [*(config_of("baseline", seed) for seed in (1, 2, 3)), *tuned]
    runs = [write_run(tmp_path / f"{i}", config, evaluation_of([0.5])) for i, config in enumerate(configs)]
    rows = [
        {"step": 5, "changes": {"training.steps": [5, 10]}},
        {"step": 7, "changes": {"evaluation.episodes": [1, 2]}},
    ]
    (runs[1] / "changes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    strange = [{"step": 1, "changes": 5}, {"changes": [STEPS]}]  # which nobody of ours wrote
    (runs[2] / "changes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (rows[1], *strange)))
    plain, extended, scored_again, *fine_tuned = (run.arm for run in scored_runs(runs))
    assert plain == scored_again
    assert extended == "baseline extended_at=5"
    assert fine_tuned[0] == fine_tuned[1]
    assert fine_tuned[0] not in (plain, extended)


def test_a_measure_of_episodes(tmp_path: Path) -> None:
    made = evaluation_of([1.0, 0.5, 1.0])
    for row, distance in zip(made["episodes"], (1.0, 2.0, 6.0), strict=True):
        row["metrics"] = {"distance": distance}
    run = write_run(tmp_path / "a", config_of(), made)
    by_success, by_distance = (scored_runs([run], measure=measure)[0] for measure in ("success", "distance"))
    assert (by_success.score, by_success.better) == (pytest.approx(2 / 3), "higher")
    assert (by_distance.scores, by_distance.better) == ({100: 1.0, 101: 2.0, 102: 6.0}, "")
    with pytest.raises(UserError, match=r"a has no measure 'sucess'; did you mean 'success'\?"):
        scored_runs([run], measure="sucess")


def test_an_episode_that_failed_has_no_metric(tmp_path: Path) -> None:
    made = evaluation_of([1.0, 0.0, 1.0], failed_seeds=[101])
    for place, distance in ((0, 1.0), (2, 6.0)):
        made["episodes"][place]["metrics"] = {"distance": distance}
    run = write_run(tmp_path / "a", config_of(), made)
    assert scored_runs([run], measure="distance")[0].scores == {100: 1.0, 102: 6.0}
    assert scored_runs([run])[0].scores == {100: 1.0, 101: 0.0, 102: 1.0}
    with pytest.raises(UserError, match="no measure 'distanc'; did you mean 'distance'"):
        scored_runs([run], measure="distanc")


def test_measures_of_images(tmp_path: Path) -> None:
    measures = {"fid": {"value": 7.5, "floor": 2.0, "better": "lower"}}
    made = {"step": 1000, "score": 0.4, "images": 100, "score_images": 100, "measures": measures, "sampler": "ddim"}
    run = write_run(tmp_path / "a", config_of(track="images"), made)
    (by_score,), (by_fid,) = scored_runs([run]), scored_runs([run], measure="fid")
    assert (by_score.score, by_score.scores, by_score.better) == (0.4, None, "higher")
    assert (by_fid.score, by_fid.better) == (7.5, "lower")


def test_the_score_of_a_step(tmp_path: Path) -> None:
    """The newest that `evaluate` made of it, else what lies beside the checkpoint."""
    run = write_run(tmp_path / "a", config_of(), evaluation_of([0.9]))
    rows = [evaluation_of([score], step=step) for score, step in ((0.1, 500), (0.2, 500), (0.9, 1000))]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, score in ((250, 0.3), (500, 0.4)):
        (run / f"checkpoints/{step:08d}").mkdir(parents=True)
        (run / f"checkpoints/{step:08d}/evaluation.json").write_text(json.dumps(evaluation_of([score], step=step)))
    assert [scored_runs([run], checkpoint=step)[0].score for step in (250, 500, 1000)] == [0.3, 0.2, 0.9]
    assert scored_runs([run], checkpoint=750)[0].missing == "no score of step 750"


def test_sampling_is_as_it_was_scored(tmp_path: Path) -> None:
    """Runs that `evaluate` scored alike are of one arm, whatever their own sampling is."""
    made = [config_of(seed=seed, sampling__steps=steps) for seed, steps in ((1, 8), (2, 4))]
    paths = [write_run(tmp_path / str(i), one, evaluation_of([1.0], sampling_steps=2)) for i, one in enumerate(made)]
    runs = scored_runs(paths)
    assert [run.arm for run in runs] == ["baseline", "baseline"]
    assert [(run.settings or {})["sampling.steps"] for run in runs] == [2, 2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda made: made["episodes"][0].pop("seed"), r"damaged \(KeyError: 'seed'\)"),
        (lambda made: made["episodes"][0].update(score=float("nan")), "a score is nan"),
        (lambda made: made["episodes"][0].update(score="high"), "damaged"),
        (lambda made: made["episodes"].append(made["episodes"][0]), "an evaluation seed comes twice"),
        (lambda made: made.update(episodes=[1]), "damaged"),
    ],
)
def test_a_damaged_evaluation_is_one_sentence(damage: object, said: str, tmp_path: Path) -> None:
    made = evaluation_of([0.5, 0.6])
    damage(made)  # type: ignore[operator]
    run = write_run(tmp_path / "a", config_of(), made)
    with pytest.raises(UserError, match=said):
        scored_runs([run])
    (run / "evaluation.json").write_text("[1")
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        scored_runs([run])


def test_what_a_score_of_images_is_made_of(tmp_path: Path) -> None:
    """Records of earlier versions do not say of how many images."""
    config, found = config_of(track="images"), {"value": 4.0, "floor": 2.0, "better": "lower"}
    made: dict[str, Any] = {"step": 9, "score": 0.5, "score_from": "fd", "measures": {"fd": found}}
    run = write_run(tmp_path / "a", config, made)
    assert scored_runs([run])[0].made_of == MadeOf("fd", "lower", None, None, 0)
    assert scored_runs([run], measure="fd")[0].made_of is None
    for damage in ({"measures": [1]}, {"measures": {"fd": {"floor": 2.0}}}, {"score_images": "many"}):
        (run / "evaluation.json").write_text(json.dumps(made | damage))
        with pytest.raises(UserError, match=r"the evaluation of .* is damaged"):
            scored_runs([run])


def test_a_path_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is neither a run directory .* nor the folder of a sweep"):
        scored_runs([tmp_path])
    run = write_run(tmp_path / "a", {"seed": 1})
    with pytest.raises(UserError, match=r"config\.yaml is no configuration of a run"):
        scored_runs([run])


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    runs = write_arms(tmp_path, {"a": np.ones((1, 2)), "b": np.zeros((1, 2))})
    code = (
        "import sys; from policy_accel.cli import main; assert main(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'matplotlib', 'h5py'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "compare", *map(str, runs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_churn_tells_arms_apart_where_the_sampler_has_it(tmp_path: Path) -> None:
    trained = {"sampling": {**config_of()["sampling"], "sampler": "heun", "churn": 40.0}}
    runs = [
        write_run(
            tmp_path / "own", config_of(seed=1, **trained), evaluation_of([0.5], sampler="heun", sampling_churn=40.0)
        ),
        write_run(
            tmp_path / "still", config_of(seed=2, **trained), evaluation_of([0.5], sampler="heun", sampling_churn=0)
        ),
        write_run(tmp_path / "other", config_of(seed=3, **trained), evaluation_of([0.5])),
    ]
    assert [(run.settings or {}).get("sampling.churn") for run in scored_runs(runs)] == [40.0, 0, None]


def test_times_of_the_steps_take_the_place_of_their_number(tmp_path: Path) -> None:
    """In the settings, so in the names of arms; a run of a version without times counts as one with none."""
    timed = {"sampling_steps": 2, "sampling_spacing": None, "sampling_times": [99, 25], "network_evaluations": 2}
    own = {"sampling": {**config_of()["sampling"], "times": [99, 25]}}
    runs = [
        write_run(tmp_path / "old", config_of(seed=1), evaluation_of([0.5])),
        write_run(
            tmp_path / "even", config_of(seed=2, sampling__times=None), evaluation_of([0.5], sampling_times=None)
        ),
        write_run(tmp_path / "own", config_of(seed=3, **own), evaluation_of([0.5], **timed)),
        write_run(tmp_path / "asked", config_of(seed=4), evaluation_of([0.5], **timed)),
    ]
    found = scored_runs(runs)
    own_times = "baseline times=[99,25]"
    assert [run.arm for run in found] == [found[0].arm, found[0].arm, own_times, own_times]
    assert found[0].arm == "baseline spacing=trailing steps=8"
    settings = found[2].settings
    assert settings is not None
    assert {key for key in settings if key.startswith("sampling.")} == {
        "sampling.sampler",
        "sampling.times",
        "sampling.clip_sample",
    }
    check_alike(found[:3])
    with pytest.raises(UserError, match=r"sampling_steps=8 and .*asked with sampling_steps=2"):
        check_alike(found)
    others = [
        write_run(
            tmp_path / f"tuned {seed}", config_of(seed=seed), evaluation_of([0.5], **{**timed, "sampling_times": t})
        )
        for seed, t in ((5, [99, 25]), (6, [99, 20]))
    ]
    with pytest.raises(UserError, match=r"sampling_times=\[99, 25\] and .*sampling_times=\[99, 20\]"):
        check_alike(scored_runs(others))
