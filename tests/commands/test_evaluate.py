from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.cli import main
from policy_accel.data import Episodes
from policy_accel.errors import UserError
from policy_accel.evaluation.statistics import bootstrap_difference
from policy_accel.evaluation.video import VideoWriter
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.run_sampling import TunedSampling
from policy_accel.training.checkpoint import best_checkpoint

Run = Callable[..., dict[str, Any]]
CHOSEN = [100_000, 100_001, 100_002]


def train(folder: Path, name: str, *overrides: str) -> Path:
    """A tiny run on made-up demonstrations, scored three times during training on three episodes."""
    generator = np.random.default_rng(0)
    arrays = {key: generator.uniform(0, 512, (90, size)).astype("f4") for key, size in (("state", 5), ("action", 2))}
    data = folder / f"{name}.zarr.zip"
    write_zarr(data, Episodes(arrays, np.array([30, 60, 90])))
    arguments = [
        "task=pusht_state",
        f"task.data={data}",
        "model.down_dims=[8,16]",
        "sampling.steps=2",
        "training.steps=6",
        "training.evaluate_every=2",
        "training.batch_size=4",
        "training.device=cpu",
        "evaluation.episodes=3",
        "evaluation.videos=0",
        "evaluation.workers=0",
        "task.max_steps=16",
        f"run_dir={folder / name}",
    ]
    assert main(["train", *arguments, *overrides]) == 0
    return folder / name


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs"), "scored")


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs"), "once", "training.evaluate_every=0", "task.max_steps=8", "seed=1")


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its JSON, with what it said under "said"."""

    def run(*arguments: Any) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["evaluate", *map(str, arguments), "--json"]) == 0
        printed = capsys.readouterr()
        result = json.loads(printed.out.splitlines()[-1])
        assert "said" not in result
        return {**result, "said": printed.err}

    return run


def seeds(rows: list[dict[str, Any]]) -> list[int]:
    return [row["seed"] for row in rows]


def test_the_last_checkpoint_was_not_chosen_by_its_score(run_dir: Path, evaluate: Run) -> None:
    result = evaluate(run_dir)
    trained = json.loads((run_dir / "checkpoints" / "00000006" / "evaluation.json").read_text())
    assert "selection_bias" not in result
    assert "run_dir" not in result
    assert result["episodes"] == trained["episodes"]
    assert (result["task"], result["step"], result["max_steps"]) == ("pusht_state", 6, 16)
    assert result["mean_length"] == 16
    assert 0 < result["chunk_milliseconds"]["median"] <= result["chunk_milliseconds"]["p95"]
    said = result.pop("said")
    assert "Score" in said
    assert json.loads((run_dir / "evaluation.json").read_text()) == result


def test_the_best_checkpoint_is_scored_on_fresh_seeds_too(run_dir: Path, evaluate: Run) -> None:
    best = best_checkpoint(run_dir / "checkpoints")
    assert best is not None
    recorded = json.loads((best / "evaluation.json").read_text())
    result = evaluate(run_dir, "--checkpoint", "best")
    assert result["step"] == int(best.name)
    assert result["episodes"] == recorded["episodes"], "the seeds that chose it give the score that chose it"
    bias = result["selection_bias"]
    assert seeds(bias["more_episodes"]) == [100_003, 100_004, 100_005]
    chosen = [row["score"] for row in result["episodes"]]
    fresh = [row["score"] for row in bias["more_episodes"]]
    assert bias["chosen"]["score"] == pytest.approx(np.mean(chosen)) == pytest.approx(bias["recorded_score"])
    assert bias["fresh"]["score"] == pytest.approx(np.mean(fresh))
    assert bias["difference"] == pytest.approx(np.mean(chosen) - np.mean(fresh))
    assert bias["difference_interval"] == list(bootstrap_difference(chosen, fresh))
    assert (bias["candidates"], bias["chosen_by_score"]) == (3, True)
    said = result.pop("said")
    assert "best of 3 scores during training" in said
    assert f"difference {bias['difference']:+.3f}" in said
    assert sum("Selection bias is" in line for line in said.splitlines()) == 1
    assert json.loads((run_dir / "evaluation.json").read_text()) == result
    by_number = evaluate(run_dir, "--checkpoint", int(best.name))
    assert by_number["selection_bias"]["chosen_by_score"]


@pytest.mark.parametrize(
    ("options", "asked", "more"),
    [
        (["--seed", "7", "--episodes", "2"], [7, 8], CHOSEN[:2]),
        (["--episodes", "5"], [*CHOSEN, 100_003, 100_004], []),
        (["--episodes", "1"], CHOSEN[:1], [100_003]),
    ],
)
def test_seeds_that_were_asked_for_are_one_side(
    run_dir: Path, evaluate: Run, options: list[str], asked: list[int], more: list[int]
) -> None:
    result = evaluate(run_dir, "--checkpoint", "best", *options)
    assert seeds(result["episodes"]) == asked
    bias = result["selection_bias"]
    assert seeds(bias["more_episodes"]) == more
    used = [*asked, *more]
    assert bias["chosen"]["episodes"] == len(set(used) & set(CHOSEN))
    assert bias["fresh"]["episodes"] == len(set(used) - set(CHOSEN))


def test_fresh_seeds_for_any_checkpoint(run_dir: Path, other_dir: Path, evaluate: Run) -> None:
    result = evaluate(run_dir, "--fresh")
    assert result["step"] == 6
    assert seeds(result["selection_bias"]["more_episodes"]) == [100_003, 100_004, 100_005]
    assert not result["selection_bias"]["chosen_by_score"]
    assert "was not chosen for its score" in result["said"]
    only = evaluate(other_dir, "--checkpoint", "best")
    assert "selection_bias" not in only
    assert "One checkpoint was scored during training" in only["said"]


def test_several_runs_make_a_table(run_dir: Path, other_dir: Path, evaluate: Run) -> None:
    result = evaluate(run_dir, other_dir, "--seed", "20", "--episodes", "2")
    assert [row["run_dir"] for row in result["runs"]] == [str(run_dir), str(other_dir)]
    assert [row["max_steps"] for row in result["runs"]] == [16, 8]
    lines = result["said"].splitlines()[-3:]
    header = lines[0].split()
    assert header[:5] == ["run", "task", "step", "episodes", "seeds"]
    starts = [lines[0].index(name) for name in ("run", "task", "step", "episodes", "seeds", "max steps", "success")]
    cells = [[line[a:b].strip() for a, b in itertools.pairwise(starts)] for line in lines[1:]]
    assert cells == [
        ["scored", "pusht_state", "6", "2", "20-21", "16"],
        ["once", "pusht_state", "6", "2", "20-21", "8"],
    ]
    for line, row in zip(lines[1:], result["runs"], strict=True):
        low, high = row["score_interval"]
        assert f"{row['score']:.3f} [{low:.3f}, {high:.3f}]" in line
        assert f"{row['chunk_milliseconds']['median']:.1f}" in line
    assert json.loads((other_dir / "evaluation.json").read_text())["max_steps"] == 8


def test_a_table_with_fresh_seeds(run_dir: Path, other_dir: Path, evaluate: Run) -> None:
    result = evaluate(run_dir, other_dir, "--checkpoint", "best", "--episodes", "2")
    header, first, second = result["said"].splitlines()[-3:]
    assert header.endswith("fresh seeds")
    assert f"{result['runs'][0]['selection_bias']['fresh']['score']:.3f}" in first[header.index("fresh seeds") :]
    assert second[header.index("fresh seeds") :] == "-"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--camera", "side", "--videos", "0"], "camera=side films nothing with evaluation.videos=0"),
        (["--camera", "side", "--videos", "1"], "does not take render_camera"),
        (["--samples", "3"], "--samples is for images, and"),
        (["--episodes", "0"], "--episodes 0 must be at least 1."),
    ],
)
def test_mistakes_are_one_sentence(
    run_dir: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    before = (run_dir / "evaluations.jsonl").read_text()
    assert main(["evaluate", str(run_dir), *options]) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert (run_dir / "evaluations.jsonl").read_text() == before


def test_a_wrong_folder_among_several_is_found_first(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_dir / "evaluations.jsonl").read_text()
    assert main(["evaluate", str(run_dir), str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("track: images\n")
    assert main(["evaluate", str(run_dir), str(tmp_path)]) == 2
    assert "one at a time" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--fresh"]) == 2
    assert "--fresh is for robot policies, and" in capsys.readouterr().err
    assert (run_dir / "evaluations.jsonl").read_text() == before


def test_without_json_a_person_reads_the_score(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run_dir), "--episodes", "1", "--videos", "0", "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Score 0.")
    assert "{" not in printed


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_cannot_be_written_is_scored_and_its_result_printed(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared run, or a full disk: said first, and again with status 2; no film is lost work either."""

    def read_only(path: Path, *_: Any) -> None:
        raise UserError(f"{path}: no permission to write it.")

    def no_film(self: VideoWriter, frame: Any) -> None:
        raise UserError("cannot write the video")

    monkeypatch.setattr("policy_accel.commands.evaluate.check_writable", read_only)
    monkeypatch.setattr("policy_accel.commands.evaluate.keep_evaluation", read_only)
    monkeypatch.setattr(VideoWriter, "add", no_film)
    words = ["--seed", "40", "--episodes", "2", "--videos", "1", "--workers", "0"]
    assert main(["evaluate", str(run_dir), *words, "--json"]) == 2
    said = capsys.readouterr()
    assert seeds(json.loads(said.out.splitlines()[-1])["episodes"]) == [40, 41]
    assert f"{run_dir}: no permission to write it. It is scored, and the result is only printed." in said.err
    assert "No film of the episode of seed 40: cannot write the video" in said.err


@pytest.mark.parametrize("several", [False, True])
def test_a_result_is_printed_though_it_cannot_be_kept(
    several: bool, run_dir: Path, other_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the episodes are played; the second run lies on another one."""
    play = PolicyEvaluator.__call__
    evaluation, other = run_dir / "evaluation.json", other_dir / "evaluation.json"
    before = evaluation.read_text() if evaluation.is_file() else None

    def then_fill(self: PolicyEvaluator, *arguments: Any) -> Any:
        result = play(self, *arguments)
        monkeypatch.setattr(os, "fsync", full_disk if self.video_dir.parent == run_dir else fsync)
        return result

    fsync = os.fsync
    monkeypatch.setattr(PolicyEvaluator, "__call__", then_fill)
    runs = [run_dir, other_dir] if several else [run_dir]
    assert main(["evaluate", *map(str, runs), "--seed", "40", "--episodes", "2", "--json"]) == 2
    said = capsys.readouterr()
    printed = json.loads(said.out.splitlines()[-1])
    results = printed["runs"] if several else [printed]
    assert [seeds(result["episodes"]) for result in results] == [[40, 41]] * len(runs)
    assert "evaluation.json: the disk is full" in said.err.splitlines()[-1]
    assert (evaluation.read_text() if evaluation.is_file() else None) == before
    if several:
        assert seeds(json.loads(other.read_text())["episodes"]) == [40, 41]


def test_a_score_is_printed_and_written_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run_dir: Path) -> Path:
        raise ValueError("cannot draw")

    monkeypatch.setattr("policy_accel.commands.train.plot_learning_curve", fail)
    with pytest.raises(ValueError, match="cannot draw"):
        train(tmp_path, "undrawn", "training.evaluate_every=0")
    kept = json.loads((tmp_path / "undrawn" / "evaluation.json").read_text())
    assert seeds(kept["episodes"]) == CHOSEN
    assert f"Score {kept['score']:.3f}" in capsys.readouterr().out


def test_averages_of_other_lengths_are_compared(tmp_path: Path, evaluate: Run) -> None:
    options = ["training.evaluate_every=0", "training.ema.lengths=[0.1,0.2]", "training.checkpoint.keep_every=2"]
    run_dir = train(tmp_path, "lengths", *options, "training.checkpoint.every=2")
    compared = evaluate(run_dir, "--average", "all", "--seed", 7)
    assert set(compared["averages"]) == {"ema", "ema_0.1", "ema_0.2"}
    assert compared["score"] == compared["averages"][compared["average"]] == max(compared["averages"].values())
    assert f"The best average is {compared['average']}: chosen by these very scores" in compared["said"]
    for average, score in compared["averages"].items():
        alone = evaluate(run_dir, "--average", average, "--seed", 7)
        assert (alone["average"], alone["score"]) == (average, score)
        assert "averages" not in alone
    between = evaluate(run_dir, "--average", "ema_0.15")
    assert between["average"] == "ema_0.15"
    assert evaluate(run_dir)["average"] == "ema"


def test_the_films_are_of_the_main_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = train(tmp_path, "filmed", "training.evaluate_every=0", "training.ema.lengths=[0.1]")
    filmed: list[int] = []
    score = PolicyEvaluator.__call__

    def watched(self: PolicyEvaluator, *given: Any) -> dict[str, Any]:
        filmed.append(self.config.videos)
        return score(self, *given)

    monkeypatch.setattr(PolicyEvaluator, "__call__", watched)
    assert main(["evaluate", str(run_dir), "--average", "all", "--videos", "1", "--episodes", "1"]) == 0
    assert filmed == [1, 0]


def test_an_average_that_is_not_there(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run_dir), "--average", "ema_0.2"]) == 2
    assert "holds no averages to make others from; train with training.ema.lengths" in capsys.readouterr().err
    assert main(["evaluate", str(run_dir), "--average", "swa"]) == 2
    assert "has no average 'swa' of the weights; it has ema." in capsys.readouterr().err


def test_the_times_of_the_steps_are_asked_for_and_recorded(run_dir: Path, evaluate: Run) -> None:
    result = evaluate(run_dir, "--sampling-times", "99,25,25", "--sampler", "ddpm")
    assert result["network_evaluations"] == result["sampling_steps"] == 3
    assert (result["sampler"], result["sampling_times"], result["sampling_spacing"]) == ("ddpm", [99, 25, 25], None)
    even = evaluate(run_dir)
    assert (even["sampling_steps"], even["sampling_times"], even["sampling_spacing"]) == (2, None, "trailing")
    own = evaluate(run_dir, "--sampling-times", "99,49")
    assert own["episodes"] == even["episodes"], "the two times of the trailing grid"


def test_a_run_with_times_of_its_own(tmp_path: Path, evaluate: Run) -> None:
    made = train(tmp_path, "timed", "sampling.times=[99, 25]", "training.evaluate_every=0")
    result = evaluate(made)
    assert (result["sampling_times"], result["network_evaluations"]) == ([99, 25], 2)
    assert result["episodes"] == json.loads((made / "checkpoints/00000006/evaluation.json").read_text())["episodes"]
    assert evaluate(made, "--sampling-steps", "3")["sampling_times"] is None


def test_what_was_tuned_is_used_and_said(run_dir: Path, evaluate: Run) -> None:
    path = TunedSampling(6, 1, {1: {"sampler": "ddim", "times": [90]}}).write(run_dir)
    try:
        result = evaluate(run_dir)
        assert result["sampling_times"] == [90]
        assert "Sampled as tuned at step 6: ddim at times [90] (sampling.yaml)." in result["said"]
        assert evaluate(run_dir, "--sampling-steps", "1")["sampling_times"] == [90]
        assert evaluate(run_dir, "--sampling-steps", "3")["sampling_times"] is None
        untuned = evaluate(run_dir, "--untuned")
        assert (untuned["sampling_times"], untuned["sampling_steps"]) == (None, 2)
        assert "Sampled as" not in untuned["said"]
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sampling-times", "99,25", "--spacing", "leading"], "times [99, 25] say which steps are taken"),
        (["--sampling-times", "99,99.5"], "sampling.times=[99, 99.5]: 99.5 must be an integer from 0 to 99."),
        (["--sampling-times", "25,99"], "goes from 25 to 99, where noise is added anew, which only"),
    ],
)
def test_times_that_cannot_be(
    options: list[str], sentence: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_dir), *options]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sampling-times", "99,25", "--sampling-steps", "2"], "not allowed with argument"),
        (["--sampling-times", "99;25"], "99;25 is not a list of times; write them as 99,25"),
    ],
)
def test_times_that_cannot_be_read(
    options: list[str], sentence: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(run_dir), *options])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
