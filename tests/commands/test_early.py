from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from policy_accel.cli import main
from policy_accel.commands.early import check_data, check_run

NO_RUN = "no is not a run directory: it does not exist; give the run_dir of a training run."
NO_DATA = "no: does not exist, cannot read it; check the path."
NO_FILE = "no.yaml: there is no such file."

MISSING = {
    "evaluate no": NO_RUN,
    "evaluate made no": NO_RUN,
    "evaluate made --guide no": NO_RUN,
    "export no --to onnx": NO_RUN,
    "sample no": NO_RUN,
    "sample made --guide no": NO_RUN,
    "serve name=no": NO_RUN,
    "tune-sampling no": NO_RUN,
    "distill no --evaluations 1": NO_RUN,
    "benchmark sample no": NO_RUN,
    "benchmark latency no": NO_RUN,
    "benchmark rollouts no": NO_RUN,
    "evaluate made --data no": NO_DATA,
    "diagnose no": NO_DATA,
    "train task.data=no": NO_DATA,
    "train task=shapes task.data=no": NO_DATA,
    "demo task.data=no": NO_DATA,
    "benchmark step task.data=no": NO_DATA,
    "benchmark sample task.data=no": NO_DATA,
    "list parameters task.data=no": NO_DATA,
    "train task=no.yaml": f"task={NO_FILE}",
    "sweep no.yaml": NO_FILE,
    "benchmark time-to-score no.yaml": NO_FILE,
    "evaluate made --checkpoint 7": "made has no checkpoint '7'; there are last, best and the steps [5].",
    "serve made --checkpoint 7": "made has no checkpoint '7'; there are last, best and the steps [5].",
}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a checkpoint."""
    monkeypatch.chdir(tmp_path)
    Path("made/checkpoints/00000005").mkdir(parents=True)
    Path("made", "config.yaml").write_text("track: robot\n")


def test_what_is_not_there_is_told_before_torch_is_imported() -> None:
    program = (
        "import sys; from policy_accel.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    assert main(line.split()) == 2, line\n"
        "    assert 'torch' not in sys.modules, line"
    )
    done = subprocess.run([sys.executable, "-c", program, *MISSING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"policy-accel: {sentence}" for sentence in MISSING.values()]


@pytest.mark.parametrize("path", ["null", "None", "shipped:pusht", "file.hdf5::lift", "${seed}", "'a b'", "[a]", ""])
def test_what_may_be_no_path_is_let_through(path: str) -> None:
    check_data(path)


@pytest.mark.parametrize(
    "files",
    [
        ["exported/policy.onnx"],
        ["lerobot/config.json", "lerobot/model.safetensors"],
        [
            "diffusers/model_index.json",
            "diffusers/unet/config.json",
            "diffusers/unet/diffusion_pytorch_model.safetensors",
        ],
        ["edm.pkl"],
        ["checkpoint/state.json"],
        ["run/config.yaml", "run/checkpoints/00000005/state.json"],
    ],
)
def test_whatever_is_no_run_of_ours_is_left_to_what_reads_it(files: list[str]) -> None:
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"_class_name": "UNet2DModel"}' if file.parent.name == "unet" else "track: robot\n")
    path = Path(files[0])
    check_run(path.parent if len(path.parts) > 1 and path.suffix != ".onnx" else path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("list tasks task=zzz", "task=zzz: only `policy-accel list parameters` takes settings; drop it."),
        ("sweep no.yaml --status made", "no.yaml"),
        ("evaluate made --checkpoint ²", "made has no checkpoint '²'; there are last, best and the steps [5]."),
        ("train task.data=~nobody_of_this_name/x", "~nobody_of_this_name/x: does not exist"),
    ],
)
def test_other_mistakes_are_told_as_ever(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert sentence in capsys.readouterr().err


def test_the_configuration_of_data_that_are_elsewhere_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "task=pusht_state", "task.data=no", "--print-config"]) == 0
    assert "data: 'no'\n" in capsys.readouterr().out
