from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.run_files import checkpoint_steps
from policy_accel.training.checkpoint import (
    CheckpointConfig,
    DamagedError,
    best_checkpoint,
    fitting,
    load_checkpoint,
    load_newest,
    prune_checkpoints,
    record_evaluation,
    save_checkpoint,
)


def tensors(value: float) -> dict[str, dict[str, Tensor]]:
    return {name: {"w": torch.full((3,), value)} for name in ("model", "ema", "optimizer")}


def test_round_trip(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 5, tensors(2.0), {"note": [1, "a"]})
    loaded = load_checkpoint(path)
    assert path.name == "00000005"
    assert loaded.step == 5
    assert loaded.state["note"] == [1, "a"]
    assert all(torch.equal(values["w"], torch.full((3,), 2.0)) for values in loaded.tensors.values())
    assert sorted(file.name for file in path.iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert (tmp_path / "last").resolve() == path
    assert os.readlink(tmp_path / "last") == "00000005"


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "state"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, 1, tensors(1.0), {})
    newest = save_checkpoint(tmp_path, 2, tensors(2.0), {})
    file = newest / ("state.json" if damage == "state" else "ema.safetensors")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.write_bytes(content[: len(content) // 2])
    said: list[str] = []
    found = load_newest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert file.name in said[0]
    assert "going back to the one before" in said[0]
    assert checkpoint_steps(tmp_path) == [1]
    assert (tmp_path / "00000002.damaged").is_dir()


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, tensors(1.0), {})
    (tmp_path / ".00000002.partial").mkdir()
    (tmp_path / ".00000002.partial" / "ema.safetensors").write_bytes(b"half")
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert not (tmp_path / ".00000002.partial").exists()
    assert save_checkpoint(tmp_path, 2, tensors(2.0), {}).is_dir()


def test_no_whole_checkpoint_is_an_error(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path, 1, tensors(1.0), {}) / "state.json").unlink()
    with pytest.raises(UserError, match="None of the checkpoints"):
        load_newest(tmp_path, lambda line: None)
    with pytest.raises(UserError, match="None of the checkpoints"):  # nor does a second start begin anew
        load_newest(tmp_path, lambda line: None)


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.ENOSPC, "disk is full.*free some space"), (errno.EACCES, "no permission.*choose another path")],
)
def test_a_refused_write_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    save_checkpoint(tmp_path, 1, tensors(1.0), {})

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match=sentence):
            save_checkpoint(tmp_path, 2, tensors(2.0), {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00000001", "last"]
    assert load_checkpoint(tmp_path / "last").step == 1


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    scores = {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.8, 5: 0.2}
    for step in range(1, 9):
        path = save_checkpoint(tmp_path, step, tensors(step), {})
        if step in scores:
            record_evaluation(path, {"score": scores[step]})
    assert best_checkpoint(tmp_path) == tmp_path / "00000001"
    prune_checkpoints(tmp_path, CheckpointConfig(keep_last=2, keep_best=2))
    assert checkpoint_steps(tmp_path) == [1, 4, 7, 8]
    prune_checkpoints(tmp_path, CheckpointConfig(keep_last=3, keep_best=0))
    assert checkpoint_steps(tmp_path) == [4, 7, 8]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({9: 0.5, 10: 0.9, 100: 0.9, 101: 0.1}, 100),  # the later one on a tie
        ({1: 0.0, 2: 0.0}, 2),
        ({1: -3.0, 2: -1.0, 3: -2.0}, 2),
        ({1: 0.2, 5: float("-inf")}, 1),
    ],
)
def test_the_best_checkpoint_has_the_highest_score(tmp_path: Path, scores: dict[int, float], best: int) -> None:
    for step in (*scores, 200):
        path = save_checkpoint(tmp_path, step, tensors(step), {})
        if step in scores:
            record_evaluation(path, {"score": scores[step]})
    assert best_checkpoint(tmp_path) == tmp_path / f"{best:08d}"
    prune_checkpoints(tmp_path, CheckpointConfig(keep_last=1, keep_best=1))
    assert checkpoint_steps(tmp_path) == [best, 200]


def test_scores_of_another_measure_than_the_newest_do_not_count(tmp_path: Path) -> None:
    """A run may go on with another measure; earlier versions did not say which it was."""
    for step, (score, measure) in enumerate([(0.9, "coverage"), (0.5, "fid"), (0.4, "fid"), (0.3, None)], 1):
        path = save_checkpoint(tmp_path, step, tensors(step), {})
        record_evaluation(path, {"score": score} | ({"score_from": measure} if measure else {}))
        if step == 3:
            assert best_checkpoint(tmp_path) == tmp_path / "00000002"
    record_evaluation(save_checkpoint(tmp_path, 5, tensors(5), {}), {"score": 0.1, "score_from": "fid"})
    prune_checkpoints(tmp_path, CheckpointConfig(keep_last=1, keep_best=3))
    assert checkpoint_steps(tmp_path) == [2, 3, 4, 5]


def test_no_checkpoint_is_the_best_without_a_score(tmp_path: Path) -> None:
    record_evaluation(save_checkpoint(tmp_path, 1, tensors(1.0), {}), {"length": 3})
    save_checkpoint(tmp_path, 2, tensors(2.0), {})
    assert best_checkpoint(tmp_path) is None
    assert best_checkpoint(tmp_path / "nowhere") is None


def test_pruning_keeps_a_row_of_steps(tmp_path: Path) -> None:
    for step in range(1, 10):
        save_checkpoint(tmp_path, step, tensors(step), {})
    prune_checkpoints(tmp_path, CheckpointConfig(keep_last=2, keep_best=0, keep_every=3))
    assert checkpoint_steps(tmp_path) == [3, 6, 8, 9]


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, tensors(1.0), {})
    (path / "state.json").write_text((path / "state.json").read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(UserError, match="checkpoint format 99"):
        load_checkpoint(path)
    with pytest.raises(UserError, match="checkpoint format 99"):
        load_newest(tmp_path)
    assert checkpoint_steps(tmp_path) == [1]


def test_keys_of_a_later_version_count_as_their_defaults() -> None:
    from policy_accel.training.run_directory import differences

    old, defaults = {"training": {"steps": 3}}, {"training": {"steps": 9, "ema": {"lengths": []}}}
    same = {"training": {"steps": 3, "ema": {"lengths": []}}}
    assert differences(old, same, defaults) == []
    other = {"training": {"steps": 3, "ema": {"lengths": [0.1]}}}
    assert differences(old, other, defaults) == ["training.ema.lengths: [] -> [0.1]"]
    assert differences(old, {"training": {"steps": 4, "ema": {"lengths": []}}}, defaults) == ["training.steps: 3 -> 4"]


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64])
def test_a_file_whose_digest_fits_and_whose_content_does_not_is_damage(tmp_path: Path, content: bytes) -> None:
    path = save_checkpoint(tmp_path, 3, {"model": {"w": torch.zeros(2)}}, {})
    (path / "model.safetensors").write_bytes(content)
    state = json.loads((path / "state.json").read_text())
    state["files"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DamagedError, match=r"model\.safetensors holds no tensors"):
        load_checkpoint(path)
    (path / "state.json").write_text(json.dumps({**state, "files": [1]}))
    with pytest.raises(DamagedError, match=r"state\.json is missing or damaged"):
        load_checkpoint(path)


def test_what_does_not_fit_the_run_is_one_sentence() -> None:
    sentence = r"00000003 is not a checkpoint of this run .*KeyError: 'w'.*use an earlier one"
    with pytest.raises(DamagedError, match=sentence), fitting(Path("00000003")):
        raise KeyError("w")
    with pytest.raises(UserError, match=r"^other data$"), fitting(Path("00000003")):
        raise UserError("other data")
