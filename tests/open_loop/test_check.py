"""`policy-accel evaluate RUN --data PATH`, against the policy's own predictions and the data's own numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from support.data import write_zarr
from support.serving import tiny_run

from policy_accel.cli import main
from policy_accel.data import Episodes, read_episodes
from policy_accel.data.formats.base import MemoryReader
from policy_accel.data.readers import write_episodes
from policy_accel.open_loop import check
from policy_accel.policy.planner import chunk_noise
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AskedSampling, TunedSampling

HELD = 0
"""The episode of the tiny run that validates."""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("open loop"))


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Pictures take a second each, and one test looks at them."""
    real = check.draw
    monkeypatch.setattr(check, "draw", lambda *arguments: 2)
    return real


@pytest.fixture
def evaluate(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[dict[str, Any], str]]:
    """Result and sentences of `policy-accel evaluate RUN`."""

    def run(*arguments: object, of: Path = run_dir) -> tuple[dict[str, Any], str]:
        assert main(["evaluate", str(of), "--device", "cpu", "--json", *map(str, arguments)]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return run


@pytest.fixture
def refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object, of: Path = run_dir) -> str:
        assert main(["evaluate", str(of), "--device", "cpu", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    return run


def data_of(run_dir: Path) -> Path:
    return run_dir.parent / "walks.zarr.zip"


def part(data: Episodes, *numbers: int, **changes: Any) -> Episodes:
    """Some episodes."""
    rows = [np.arange(data.starts[i], data.episode_ends[i]) for i in numbers]
    ends = np.cumsum([len(row) for row in rows])
    return Episodes({key: values[np.concatenate(rows)] for key, values in data.arrays.items()} | changes, ends)


def test_errors_are_of_the_predictions_at_held_out_steps(
    run_dir: Path, evaluate: Any, drawn: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "draw", drawn)
    result, said = evaluate("--data", data_of(run_dir), "--windows", 7, "--noise-seed", 3)
    assert result["episodes"] == [HELD]
    assert result["training_episodes"] == 0
    assert result["windows"] == 6
    assert "1 episode of" in said
    assert "did not train the run (2 others did)" in said
    assert [one["network_evaluations"] for one in result["samplings"]] == [1, 2, 3, 4, 8]
    assert [one["own"] for one in result["samplings"]] == [False, False, True, False, False]

    episode = part(read_episodes(data_of(run_dir)), HELD)
    state, action = (torch.from_numpy(episode.arrays[key]) for key in ("state", "action"))
    steps = range(1, 30, 5)  # the first has no action before it
    assert len(steps) == result["windows"]
    for one in result["samplings"]:
        loaded = ROBOT.load(run_dir, asked=AskedSampling(steps=one["network_evaluations"]))
        shape = loaded.policy.noise_shape(loaded.sampler)
        noise = chunk_noise(shape, 3, [HELD] * len(steps), list(steps))
        observed = torch.stack([state[[t - 1, t]] for t in steps])
        chunks = loaded.policy.predict(observed, noise, sampler=loaded.sampler)
        errors = [
            (chunk[k] - action[t + k]).square()
            for chunk, t in zip(chunks, steps, strict=True)
            for k in range(8)
            if t + k < 30
        ]
        expected = torch.stack(errors).double().mean(0).sqrt()
        assert one["rmse"] == pytest.approx(expected.tolist(), rel=1e-4)
    repeated = [(action[t - 1] - action[t]).square() for t in steps]
    expected = torch.stack(repeated).double().mean(0).sqrt()
    assert result["references"]["repeat_last"]["rmse_by_step"][0] == pytest.approx(expected.tolist(), rel=1e-5)
    assert "This is ONE episode" in said
    kept = json.loads((run_dir / "open_loop.json").read_text())
    assert kept["samplings"] == result["samplings"]
    assert not (run_dir / "evaluation.json").exists()
    assert (run_dir / "open_loop.png").read_bytes().startswith(b"\x89PNG")
    assert len((run_dir / "open_loop.png").read_bytes()) > 20_000


def test_the_unit_is_the_spread_of_what_trained_the_run_however_small_the_measured_set_is(
    run_dir: Path, evaluate: Any, tmp_path: Path
) -> None:
    """Else an episode that hardly moves would make an error of any size of a good policy."""
    own, still = read_episodes(data_of(run_dir)), tmp_path / "still.zarr.zip"
    trained = part(own, 1, 2).arrays["action"].astype(np.float64)
    write_zarr(still, part(own, HELD, action=part(own, HELD).arrays["action"] * 1e-3))
    result, said = evaluate("--data", still, "--windows", 7)
    assert result["spread"] == pytest.approx(trained.std(0), rel=1e-6)
    assert result["spread_of"] == "training"
    mean = result["references"]["mean"]
    assert mean["mae"] == pytest.approx(np.abs(trained.mean(0)), abs=1e-2)
    assert mean["relative"] == pytest.approx(np.array(mean["rmse"]) / trained.std(0), rel=1e-6)
    assert "spread and mean action: standard deviation and mean of the actions that trained the run" in said
    write_zarr(tmp_path / "two.zarr.zip", part(own, HELD, HELD))
    assert "ONE episode" not in evaluate("--data", tmp_path / "two.zarr.zip", "--windows", 7)[1]


def test_asked_and_tuned_samplings_are_measured(run_dir: Path, evaluate: Any, tmp_path: Path) -> None:
    result, _ = evaluate("--data", data_of(run_dir), "--sampling-steps", 5, "--windows", 3)
    assert [one["network_evaluations"] for one in result["samplings"]] == [5]
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    TunedSampling(4, None, {2: {"sampler": "ddim", "times": [99, 30]}}).write(copy)
    of = {"of": copy}
    result, _ = evaluate("--data", data_of(run_dir), "--windows", 3, **of)
    assert next(one for one in result["samplings"] if one["network_evaluations"] == 2)["sampling_times"] == [99, 30]
    result, _ = evaluate("--data", data_of(run_dir), "--windows", 3, "--untuned", **of)
    assert all(one["sampling_times"] is None for one in result["samplings"])


def test_episodes_that_trained_are_known_by_their_content(run_dir: Path, evaluate: Any, tmp_path: Path) -> None:
    """Whatever format they come in; those of the data's own validation split are preferred."""
    own = read_episodes(data_of(run_dir))
    new = {key: values[:60] * 2 for key, values in own.arrays.items()}
    more = Episodes(
        {key: np.concatenate([part(own, 1, 2).arrays[key], new[key]]) for key in new}, np.array([30, 60, 90, 120])
    )
    path = tmp_path / "more.hdf5"
    write_episodes(path, MemoryReader(more), "robomimic")
    result, said = evaluate("--data", path, "--windows", 4)
    assert result["episodes"] == [2, 3]
    assert result["training_episodes"] == 0
    assert "did not train the run (2 others did)" in said
    result, said = evaluate("--data", path, "--windows", 4, "--data-episodes", "0,2:")
    assert result["episodes"] == [0, 2, 3]
    assert result["training_episodes"] == 1
    assert "3 episodes" in said
    assert "of which 1 TRAINED the run" in said
    facts = tuple({"filters": ["valid"] if i in (1, 3) else []} for i in range(4))
    split = tmp_path / "split.hdf5"
    write_episodes(split, MemoryReader(Episodes(more.arrays, more.episode_ends, episode_metadata=facts)), "robomimic")
    assert evaluate("--data", split, "--windows", 4)[0]["episodes"] == [3]


def test_a_layout_of_the_run_is_not_asked_of_data_that_are_no_hdf5(
    run_dir: Path, evaluate: Any, tmp_path: Path
) -> None:
    own, (mine, new) = read_episodes(data_of(run_dir)), (tmp_path / "mine", tmp_path / "new.zarr.zip")
    write_zarr(new, part(own, 0, 1, action=part(own, 0, 1).arrays["action"] + 1))
    shutil.copytree(run_dir, mine)
    config = (mine / "config.yaml").read_text()
    assert "  layout: null\n" in config
    (mine / "config.yaml").write_text(config.replace("  layout: null\n", "  layout: lab.yaml\n"))
    result, _ = evaluate("--data", new, "--windows", "4", of=mine)
    assert result["data"] == str(new)


def test_data_of_another_make_are_read_by_a_layout(run_dir: Path, evaluate: Any, tmp_path: Path) -> None:
    own, lab, layout = read_episodes(data_of(run_dir)), tmp_path / "lab.h5", tmp_path / "lab.yaml"
    with h5py.File(lab, "w") as file:
        file["flat/command"], file["flat/q"] = own.arrays["action"] + 1, own.arrays["state"]
        file["index/ends"] = own.episode_ends
    layout.write_text("episodes: flat\nkeys: {action: command, state: q}\nends: /index/ends\n")
    result, _ = evaluate("--data", lab, "--layout", layout, "--windows", "4")
    assert result["data"] == str(lab)


def test_it_is_said_when_it_is_not_known_what_trained(
    run_dir: Path, evaluate: Any, refused: Any, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    own, changed = read_episodes(data_of(run_dir)), tmp_path / "changed.zarr.zip"
    write_zarr(changed, part(own, 0, 1, 2, action=own.arrays["action"] + 1))
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(str(data_of(run_dir)), str(changed)))
    assert "is not what the run was trained on any more" in refused("--data", changed, of=copy)
    result, said = evaluate("--data", changed, "--data-episodes", "0", "--windows", 3, of=copy)
    assert result["training_episodes"] is None
    assert "whether they trained the run is not known" in said
    changed.unlink()
    result, said = evaluate("--data", data_of(run_dir), "--windows", 3, of=copy)
    assert result["episodes"] == [0, 1, 2]
    assert "is not known" in said
    assert result["spread"] == pytest.approx(own.arrays["action"].std(0), rel=1e-5)
    assert result["spread_of"] == "measured"
    assert "of the actions of these episodes, since those of the run's training are gone or changed" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "{data}", "--episodes", "3"], "--episodes is for rollouts, and --data measures demonstrations"),
        (["--data", "{data}", "--delay-ms", "100"], "--delay-ms is for rollouts"),
        (["--windows", "3"], "--windows is for demonstrations; add --data"),
        (["--layout", "{data}"], "--layout is for demonstrations; add --data"),
        (["--data-episodes", "3"], "--data-episodes is for demonstrations"),
        (["--data", "{data}", "--windows", "0"], "--windows 0 must be at least 1"),
        (["--data", "{data}", "--average", "all"], "--average all chooses by scores"),
        (["--data", "{data}", "--data-episodes", "7"], "walks.zarr.zip: episodes names 7"),
        (["--data", "{data}", "--data-episodes", "first"], "walks.zarr.zip: episodes names"),
        (["--data", "{folder}/nothing.zarr"], "nothing.zarr"),
        (["--data", "{folder}/wide.zarr.zip"], "task.action has 3 numbers a step, and the policy was trained on 2"),
        (["--data", "{folder}/named.zarr.zip"], "'state'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], says: str, run_dir: Path, refused: Any) -> None:
    folder, own = run_dir.parent, read_episodes(data_of(run_dir))
    if not (folder / "wide.zarr.zip").exists():
        wide = np.repeat(own.arrays["action"][:, :1], 3, axis=1)
        write_zarr(folder / "wide.zarr.zip", Episodes({**own.arrays, "action": wide}, own.episode_ends))
        write_zarr(folder / "named.zarr.zip", Episodes({"action": own.arrays["action"]}, own.episode_ends))
    assert says in refused(*(one.format(data=data_of(run_dir), folder=folder) for one in arguments))


def test_a_run_without_an_environment_is_measured_at_its_end(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Any
) -> None:
    out = tmp_path / "run"
    words = ["task=pusht_state", f"task.data={data_of(run_dir)}", "task.environment=null", "model.down_dims=[8,16]"]
    words += ["training.steps=2", "training.batch_size=4", "training.device=cpu", "sampling.steps=2", f"run_dir={out}"]
    assert main(["train", *words]) == 0
    assert "The policy " in capsys.readouterr().out
    kept = (out / "open_loop.json").read_bytes()
    record = json.loads(kept)
    assert record["step"] == 2
    assert record["episodes"] == [HELD]
    assert record["training_episodes"] == 0
    assert main(["train", *words]) == 0  # which is finished
    capsys.readouterr()
    assert (out / "open_loop.json").read_bytes() == kept
    assert evaluate(of=out)[0]["samplings"] == record["samplings"]
    every = [word for word in words if not word.startswith("run_dir")]
    assert main(["train", *every, "task.val_ratio=0", f"run_dir={tmp_path / 'all'}"]) == 0
    assert "all of its 3 episodes trained the run (task.val_ratio=0)" in capsys.readouterr().out
    assert not (tmp_path / "all" / "open_loop.json").exists()
