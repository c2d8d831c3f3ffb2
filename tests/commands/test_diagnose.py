from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.data import write_zarr

from policy_accel.cli import main
from policy_accel.data import Episodes

SETTINGS = ["task=pusht_state", "model=mlp", "training.device=cpu", "training.batch_size=128"]


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    arrays = {
        key: np.cumsum(generator.normal(size=(400, dims)), axis=0).astype("f4")
        for key, dims in {"state": 5, "action": 2}.items()
    }
    path = tmp_path_factory.mktemp("data") / "walks.zarr.zip"
    write_zarr(path, Episodes(arrays, 40 * np.arange(1, 11)))
    return path


def test_prints_a_table_and_writes_numbers_and_a_picture(
    walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", str(walks), *SETTINGS, "--rows", "256"]) == 0
    printed = capsys.readouterr()
    folder = tmp_path / "diagnosis" / "walks"
    assert {path.name for path in folder.iterdir()} == {"diagnosis.json", "diagnosis.png"}
    for block in ("DATA", "NOISE", "NOISE LEVELS", "SCHEDULE", "RECOMMENDATION"):
        assert f"\n{block}" in f"\n{printed.out}"
    assert f"policy-accel train {' '.join(SETTINGS)} task.data={walks} method=baseline" in printed.out
    assert "diagnose: noise 2 of 10: whole batch" in printed.err

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads((folder / "diagnosis.json").read_text(), parse_constant=no_constant)
    noise = {row["name"]: row for row in record["noise"]}
    assert noise["whole batch"]["leaks"]
    assert not noise["independent"]["leaks"]
    batch = noise["whole batch"]
    assert batch["drop"] == pytest.approx(1 - batch["distance_after"] / batch["distance_before"])
    assert record["rows"] == 256
    assert record["advice"][0]["rule"] == "baseline"
    assert (folder / "diagnosis.png").read_bytes().startswith(b"\x89PNG")

    assert main(["diagnose", str(walks), *SETTINGS, "--rows", "128", "--output", str(folder)]) == 0
    assert json.loads((folder / "diagnosis.json").read_text())["rows"] == 128


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["DATA", "diffusion.targett=v"], "did you mean 'diffusion.target'?"),
        (["DATA", "--rows", "5"], "--rows 5 must lie between 64 and 16384."),
        (["DATA", "policy.conditioning=inpainting"], "no condition that noise could tell"),
        (["DATA", "task.max_train_episodes=1"], "33 training windows"),
        (["/no/such/file.zarr"], "/no/such/file.zarr"),
    ],
)
def test_mistakes_are_one_sentence_status_2_and_leave_nothing(
    walks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(walks) if argument == "DATA" else argument for argument in arguments]
    assert main(["diagnose", given[0], *SETTINGS, *given[1:]]) == 2
    said = capsys.readouterr()
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("policy-accel: ")
    assert sentence in last
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom policy_accel.cli import main\n"
        "try: main(['diagnose', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "before any training" in done.stdout


def test_data_of_other_fields_than_the_task_s_say_how_to_name_them(
    walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", str(walks)]) == 2
    said = capsys.readouterr().err
    assert "has no key 'keypoint'; known are: action, state. Name fields of your own by task=custom" in said


def test_images_are_told_from_demonstrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "holds images, and diagnose reads demonstrations of robots; for images, `policy-accel data" in (
        capsys.readouterr().err
    )
    assert main(["data", "inspect", str(tmp_path)]) == 0
    assert "label_dropout" not in capsys.readouterr().out
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{len(name) - 3 + (name == 'dog')}.png").rename(tmp_path / name / "1.png")
    for rest in tmp_path.glob("*.png"):
        rest.rename(tmp_path / "dog" / rest.name)
    assert main(["data", "inspect", str(tmp_path)]) == 0
    assert "task.conditional=true task.label_dropout=0.1" in capsys.readouterr().out
