"""A sweep is checked as a whole before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.sweeps import prepared, tiny

from policy_accel.errors import UserError
from policy_accel.sweep.file import read_file
from policy_accel.sweep.folder import Run, Sweep, read_sweep
from policy_accel.sweep.launcher import LocalConfig, RayConfig, SlurmConfig
from policy_accel.sweep.prepare import check, read_order

BASE = ["task=pusht_state", "model=mlp"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["method=kl,klx"], r"run klx: method=klx is unknown; did you mean 'kl'\? Nothing was started\."),
        (["training.stepps=1,2"], r"run stepps1: The configuration has no key 'training\.stepps'"),
        (["seed=1,two"], r"run seed_two: seed=two must be a whole number, for example"),
        (["seed=[1,2]"], r"^seed=\[1,2\] must .* Several values are written seed=a,b\. Nothing was started"),
        (["diffusion.target=v,eps"], r"run target_eps: diffusion\.target 'eps' does not go"),
        (["training.batch_size=8,0"], r"run batch_size0: training\.batch_size=0 must be at least 1"),
        (["task.data=made.zarr.zip,nowhere"], r"run data_nowhere: task\.data=nowhere: does not exist"),
        (["task.action=action,acton"], r"run action_acton: task\.data=made\.zarr\.zip: .*no key 'acton'; did you mean"),
        (["run_dir=a,b"], r"run_dir=a: each run of a sweep has its own; give sweep_dir=FOLDER"),
        (["sweepdir=x"], r"neither a run nor the sweep has a setting 'sweepdir'; did you mean 'sweep_dir'"),
        (["launcher=rya"], r"launcher 'rya' is unknown; did you mean 'ray'"),
        (["launcher.slot=2"], r"the sweep has no setting 'launcher\.slot'; did you mean 'launcher\.slots'"),
        (["launcher.retries=2"], r"launcher\.retries is a setting of launcher=ray; this sweep has launcher=local"),
        (["launcher.slots=two"], r"launcher\.slots=two must be a whole number"),
        (["launcher.slots=-1"], r"launcher\.slots=-1 must be at least 0"),
        (["launcher.slots=2", "launcher.gpu_memory=3"], r"both say how many runs share a GPU"),
        (["launcher=ray", "launcher.cpus=0"], r"launcher\.cpus=0 must be at least 1"),
        (["launcher=slurm", "launcher.cluster=big"], r"launcher\.cluster 'big' is unknown"),
        (["sweep_dir="], r"sweep_dir= is empty"),
        (["training.device=cuda:0,cpu"], r"run device_cuda_0: training\.device=cuda:0: a sweep chooses"),
        (
            ["launcher=ray", "training.device=cuda:1"],
            r"^training\.device=cuda:1: .* use training\.device=cuda, and CUDA_V",
        ),
        (["launcher=slurm", "training.device=cuda:1"], r"^training\.device=cuda:1: a sweep chooses the GPU of"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(words: list[str], sentence: str, place: Path) -> None:
    given = {word.partition("=")[0] for word in words}
    small = [word for word in tiny(BASE) if word.partition("=")[0] not in given]
    with pytest.raises(UserError, match=sentence):
        check(read_order([*small, *words]))
    assert not (place / "runs").exists()


def test_a_sweep_of_images(place: Path) -> None:
    order = read_order(["task=shapes", "recipe=images_demo", "method=baseline,clts", "training.device=cpu"])
    assert [config.method for config in check(order).values()] == ["baseline", "clts"]
    with pytest.raises(UserError, match=r"run data_nowhere: task\.data=nowhere: does not exist"):
        check(read_order(["task=shapes", "task.data=nowhere,x"]))
    with pytest.raises(UserError, match=r"run batch_size0: training\.batch_size=0 must be at least 1"):
        check(read_order(["task=shapes", "training.batch_size=0,1"]))


@pytest.mark.parametrize(
    ("words", "launcher"),
    [
        ([], LocalConfig()),
        (["launcher.slots=3"], LocalConfig(slots=3)),
        (["launcher=ray", "launcher.gpus=0.25"], RayConfig(gpus=0.25)),
        (
            ["launcher=slurm", "launcher.options={qos: high}", "launcher.partition=a"],
            SlurmConfig(options={"qos": "high"}, partition="a"),
        ),
    ],
)
def test_settings_of_the_launcher(words: list[str], launcher: Any) -> None:
    assert read_order(["seed=1,2", *words]).launcher == launcher


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["task=mnist", "method=kl,clts", "training.optimizer.lr=1,2"], "runs/sweeps/mnist-method-lr"),
        (["task=custom", "task.data=a/cups.v1.zarr.zip", "seed=1,2"], "runs/sweeps/custom-cups-seed"),
        (["task=custom_images", "task.data='my pictures/'", "seed=1,2"], "runs/sweeps/custom_images-my_pictures-seed"),
        (["task=custom", "task.data=a.hdf5,b.hdf5"], "runs/sweeps/custom-data"),
        (["task=pusht_state", "task.data=a.zip", "seed=1,2"], "runs/sweeps/pusht_state-seed"),
        (["seed=1"], "runs/sweeps/sweep"),
        (["seed=1", "sweep_dir=here"], "here"),
    ],
)
def test_where_a_sweep_lies(words: list[str], folder: str) -> None:
    assert read_order(words).folder == Path(folder)


def test_a_sweep_of_an_earlier_version_lies_where_it_lay(place: Path) -> None:
    older, words = Path("runs/sweeps/custom-seed"), ["task=custom", "seed=1,2"]
    Sweep(older, {"seed1": Run(["task.data=cups.hdf5", "seed=1"], 5)}).write()
    assert read_order([*words, "task.data=cups.hdf5"]).folder == older
    assert read_order([*words, "task.data=plates.hdf5"]).folder == Path("runs/sweeps/custom-plates-seed")


def test_a_line_of_a_file_is_an_override(place: Path) -> None:
    (place / "my.yaml").write_text(
        "method: baseline,kl\nseed: 1,2\ntraining.steps: 5\ntraining.compile: false\nencoder.crop: null\n"
        "task.observation: [state, 'pose[:3]']\ntask.environment_options: {a: x, b: 1.5}\nlauncher: ray\n"
    )
    assert read_file(place / "my.yaml") == [
        "method=baseline,kl",
        "seed=1,2",
        "training.steps=5",
        "training.compile=false",
        "encoder.crop=null",
        "task.observation=['state','pose[:3]']",
        "task.environment_options={a:'x',b:1.5}",
        "launcher=ray",
    ]
    order = read_order(["my.yaml", "seed=9", "launcher=local"])
    assert (order.folder, list(order.runs), order.launcher) == (
        Path("runs/sweeps/my"),
        ["baseline", "kl"],
        LocalConfig(),
    )
    assert "seed=9" in order.runs["kl"]
    for text, sentence in (("[1]", "holds no settings; write key: value"), ("a: [", "not a readable YAML file")):
        (place / "my.yaml").write_text(text)
        with pytest.raises(UserError, match=sentence):
            read_file(place / "my.yaml")
    with pytest.raises(UserError, match=r"nowhere\.yaml: there is no such file"):
        read_order(["nowhere.yaml"])


def test_a_sweep_grows_and_is_not_mistaken_for_another(place: Path) -> None:
    words = tiny(BASE, **{"training.threads": "0"})
    sweep = prepared([*words, "seed=1,2"])
    assert sweep.runs["seed2"].overrides[-2:] == ["training.threads=1", "evaluation.workers=1"]
    assert read_sweep(sweep.folder) == sweep
    grown = prepared([*words, "seed=range(1,5)", "evaluation.workers=0"], threads=2)  # which may change
    assert grown.folder == sweep.folder
    assert grown.runs["seed4"].overrides[-1] == "training.threads=1"  # as those before, whose bits depend on it
    assert list(read_sweep(sweep.folder).runs) == ["seed1", "seed2", "seed3", "seed4"]
    for other, difference in (
        (["seed=1,2"], "its run seed3 is missing here"),
        (["seed=range(1,5)", "method=kl"], r"seed1: method: None -> kl"),
    ):
        with pytest.raises(UserError, match=rf"holds another sweep \({difference}\); choose another sweep_dir"):
            prepared([*words, *other])


def test_threads_that_are_given_are_those_of_every_run(place: Path) -> None:
    sweep = prepared([*tiny(BASE, **{"training.threads": "3"}), "seed=1,2"])
    assert sweep.threads == 3
    assert sweep.runs["seed1"].overrides[-1] == "evaluation.workers=3"
