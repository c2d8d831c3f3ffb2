from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from policy_accel.cli import main, parse
from policy_accel.commands.early import check_data, check_named, check_run
from policy_accel.errors import UserError

MODELS = "the file or folder of a model (EDM, EDM2, DiT, diffusers, LeRobot, Diffusion Policy)."
NO_RUN = f"no: no such file or run; give a run directory, or {MODELS}"
NO_URL = f"http:/a/b.pkl: no such file or run; a URL is not fetched: download it, and give a run directory, or {MODELS}"
NO_DATA = "no: does not exist, cannot read it; check the path."
NO_WEIGHTS = (
    "is neither a run directory (no config.yaml) nor the folder of a checkpoint (no state.json); give one of them, or "
    f"{MODELS}"
)
NO_RUNS = (
    "is neither a run directory (no config.yaml) nor the folder of a sweep (no sweep.json); give the run_dir of runs, "
    "or the sweep_dir of a sweep."
)
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
    "data inspect no": NO_DATA,
    "data decode no --output x.npz": NO_DATA,
    "data encode . --autoencoder no --output x.npz": NO_DATA,
    "sample made --edit no": NO_DATA,
    "train task.data=no": f"task.data={NO_DATA}",
    "train task=shapes task.data=no": f"task.data={NO_DATA}",
    "train task=shapes task.autoencoder=no": f"task.autoencoder={NO_DATA}",
    "train task.data=shipped:pusht task.layout=no": f"task.layout={NO_DATA}",
    "train task=pusht_image encoder.weights=no": f"encoder.weights={NO_DATA}",
    "train init_from=no": f"init_from={NO_RUN}",
    "train init_from=http://a/b.pkl": f"init_from={NO_URL.replace(':/', '://', 1)}",
    "sample http://a/b.pkl": NO_URL,
    "train task.data=https://a/b.zip": "task.data=https:/a/b.zip: a URL is not fetched; download it, and give the path "
    "of the file.",
    "train init_from=.": f"init_from=. {NO_WEIGHTS}",
    "train init_from=no run_dir=made": f"init_from={NO_RUN}",
    "demo task.data=no": f"task.data={NO_DATA}",
    "demo images task.data=no": f"task.data={NO_DATA}",
    "benchmark step task.data=no": f"task.data={NO_DATA}",
    "benchmark sample task.data=no": f"task.data={NO_DATA}",
    "list parameters task.data=no": f"task.data={NO_DATA}",
    "sweep task=pusht_state,lift task.data=no seed=1,2": f"task.data={NO_DATA}",
    "sweep task=mnist task.data=made,no launcher.slots=2 sweep_dir=x": f"task.data={NO_DATA}",
    "sweep several.yaml task.data=shipped:pusht init_from=no": f"init_from={NO_RUN}",
    "sweep several.yaml": f"task.data={NO_DATA}",
    "train task=no.yaml": f"task={NO_FILE}",
    "sweep no.yaml": NO_FILE,
    "benchmark time-to-score no.yaml": NO_FILE,
    "compare no": f"no {NO_RUNS}",
    "report no": f"no {NO_RUNS}",
    "evaluate made --checkpoint 7": "made has no checkpoint '7'; there are last, best and the steps [5].",
    "serve made --checkpoint 7": "made has no checkpoint '7'; there are last, best and the steps [5].",
}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a checkpoint, and the file of a sweep."""
    monkeypatch.chdir(tmp_path)
    Path("made/checkpoints/00000005").mkdir(parents=True)
    Path("made", "config.yaml").write_text("track: robot\n")
    Path("several.yaml").write_text("seed: 1,2\ntask.data: 'no'\n")


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


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train task.data=no training.stepz=3", "has no key 'training.stepz'; did you mean 'training.steps'?"),
        ("train task.data=no method=klx", "method=klx is unknown; did you mean 'kl'?"),
        ("train init_from=no training", "'training' is not of the form key=value"),
        ("sweep task=shapes init_from=no training.stepz=3", "has no key 'training.stepz'"),
        ("sweep several.yaml lunacher=ray", "did you mean 'launcher'?"),
        ("diagnose no task.dta=3", "has no key 'task.dta'; did you mean 'task.data'?"),
    ],
)
def test_a_wrong_key_is_told_before_what_is_missing(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "more"), [("mine", ["run_dir=mine"]), ("runs/mine", []), ("x/kl", ["run_dir=x/${method}"])]
)
def test_a_run_that_goes_on_needs_no_weights_of_others(folder: str, more: list[str]) -> None:
    line = ["train", "init_from=gone", *more]
    with pytest.raises(UserError):
        check_named(parse(["train", "init_from=gone", "run_dir=made"]))
    Path(folder, "checkpoints").mkdir(parents=True)
    Path(folder, "config.yaml").write_text("init_from: gone\n")
    check_named(parse(line))


def test_weights_that_are_missing_are_no_fault_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Where only the configuration of a run names them."""
    Path("mine.yaml").write_text("init_from: 'no'\n")
    assert main(["sweep", "recipe=mine.yaml", "task=pusht_state", "seed=1,2"]) == 2
    assert f"run seed1: init_from={NO_RUN} Nothing was started." in capsys.readouterr().err
