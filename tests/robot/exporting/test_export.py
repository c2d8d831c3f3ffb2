from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from policy_accel import Policy
from policy_accel.cli import main
from policy_accel.diffusion import FlowProcess, Objective, Process, Sampler, SigmaProcess, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.shortcut import ShortcutProcess
from policy_accel.diffusion.two_step import TwoStepProcess
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.models import ModelConfig
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.encoders import EncoderConfig
from policy_accel.models.encoders.config import ResNetConfig, ViTConfig
from policy_accel.models.mlp import MLPConfig
from policy_accel.models.transformer import TransformerConfig
from policy_accel.models.unet import UnetConfig
from policy_accel.policy.normalization import fit_normalizer
from policy_accel.policy.policy import DiffusionPolicy, PolicyConfig
from policy_accel.policy.track import ROBOT
from policy_accel.robot.exporting import export
from policy_accel.robot.exporting.export import TOLERANCE, export_policy, onnx_of, traced
from policy_accel.robot.exporting.session import onnx_session
from policy_accel.robot.exporting.whole import WholePrediction, example_inputs

MLP = MLPConfig(hidden_dims=[8], step_embedding_dim=4)
NETWORKS: dict[str, ModelConfig] = {
    "unet": UnetConfig(down_dims=[8], kernel_size=3, step_embedding_dim=4),
    "transformer": TransformerConfig(embedding_dim=8, layers=1, heads=2),
    "mlp": MLP,
}
RESNET = {
    "images": {"front": (48, 56, 3)},
    "resized": {"front": (36, 42)},
    "encoder": EncoderConfig(crop=34, feature_dim=4, resnet=ResNetConfig(width=8, group_channels=4, keypoints=2)),
}
VIT = {
    "images": {"a.left": (8, 8, 3), "right": (8, 12, 1)},
    "encoder": EncoderConfig("vit_small", crop=None, feature_dim=4, vit=ViTConfig(4, 8, 1, 2)),
}
ARM = {"action_rotation": "rotation_6d", "action_dim": 10}
CASES: dict[str, tuple[str, Process, str, str, int, dict[str, Any]]] = {
    "unet-ddim": ("unet", vp_process(), "sample", "ddim", 1, {}),
    "transformer-dpm_solver++": ("transformer", vp_process(), "v", "dpm_solver++", 1, {}),
    "resnet-shortcut": ("mlp", ShortcutProcess(), "flow", "euler", 1, RESNET),
    "vit-rotations-flow": ("mlp", FlowProcess(), "flow", "euler", 1, VIT | ARM),
    "planning-heun": ("mlp", SigmaProcess("edm"), "edm", "heun", 2, {"conditioning": "planning", "goal_columns": [2]}),
    "inpainting-ddpm": ("mlp", vp_process(), "epsilon", "ddpm", 3, {"conditioning": "inpainting"}),
    "mip": ("mlp", TwoStepProcess(), "sample", "mip", 2, {}),
}

TRACED_ALONE = ("unet-ddim", "inpainting-ddpm", "mip")
"""Cases of which other tests have the network and the arithmetic in ONNX; it takes a second or two each."""


def build(case: str) -> tuple[DiffusionPolicy, Sampler]:
    network, process, target, sampler, steps, how = CASES[case]
    how = {"observation_dim": 3, "action_dim": 2, **how}
    shape = PolicyConfig(horizon=8, n_action_steps=4, conditioning=how.pop("conditioning", "global"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = DiffusionPolicy(shape, NETWORKS[network], **how)
        data = 3.0 * torch.randn(50, how["observation_dim"])
    policy.observation_normalizer = fit_normalizer(data)
    return policy.eval().requires_grad_(False), Sampler(
        Objective(process, target), SamplingConfig(sampler, steps=steps)
    )


def predicted(policy: DiffusionPolicy, sampler: Sampler, given: dict[str, Tensor]) -> Tensor:
    given = dict(given)
    noise = given.pop("noise")
    return policy.predict(given if policy.images else given["state"], noise, sampler=sampler)


@pytest.mark.parametrize("case", CASES)
def test_any_network_and_sampler_is_traced_and_onnxruntime_predicts_as_the_policy(case: str) -> None:
    policy, sampler = build(case)
    whole = WholePrediction(policy, sampler)
    program, batches = traced(whole, [example_inputs(policy, sampler, batch, torch.float32) for batch in (2, 1)])
    content = None if case in TRACED_ALONE else onnx_of(program, whole.inputs, ["actions", "plan"])
    assert batches == (1, 3)
    for batch in batches:
        given = example_inputs(policy, sampler, batch, torch.float32)
        expected = predicted(policy, sampler, given)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(*given.values())[0], expected)
        if content is not None:
            arrays = {name: values.numpy() for name, values in given.items()}
            np.testing.assert_allclose(onnx_session(content).run(["actions"], arrays)[0], expected, atol=TOLERANCE)


def test_numbers_far_from_zero_are_taken_in_float64_and_weights_may_have_fewer_bits() -> None:
    policy, sampler = build("unet-ddim")
    times = 1.7e9 + 0.1 * torch.arange(30, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    policy.observation_normalizer = fit_normalizer(times)
    given = example_inputs(policy, sampler, 2, torch.float64)
    exact = predicted(policy, sampler, given)
    errors = {}
    for weights in ("fp32", "bf16", "int8"):
        whole = WholePrediction(policy, sampler, weights)
        errors[weights] = float((whole(*given.values())[0] - exact).abs().max())
        sizes = {buffer.element_size() for buffer in whole.buffers() if buffer.ndim > 1 and buffer.shape[-1] > 1}
        assert sizes == {{"fp32": 4, "bf16": 2, "int8": 1}[weights]}
    assert errors["fp32"] == 0 < errors["bf16"] < 0.05
    assert 0 < errors["int8"] < 0.05


@pytest.fixture(scope="module")
def files(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run of the tests, sampled in one step, in each form."""
    folder = tmp_path_factory.mktemp("exported")
    found = {"onnx": folder / "a.onnx", "torch": folder / "a.pt2", "safetensors": folder / "a.safetensors"}
    for form, path in found.items():
        assert main(["export", str(run_dir), "--to", form, "--sampling-steps", "1", "--output", str(path)]) == 0
    return found


TENSORS = "import torch; given = {name: torch.tensor(values) for name, values in given.items()}"
LOADED_ALONE = """
import importlib.util, json, sys
for name in {without}:
    sys.modules[name] = None
spec = importlib.util.spec_from_file_location("loader", sys.argv[1])
loader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loader)
policy = loader.{name}(sys.argv[2])
given = json.loads(sys.argv[3])
{prepare}
actions = policy.predict(given).tolist()
policy.reset()
acted = [policy.act({{"state": given["state"][0][step]}}).tolist() for step in (0, 1)]
print(json.dumps([actions, acted, policy.about["n_action_steps"]]))
"""


@pytest.mark.parametrize(
    ("form", "name", "without", "prepare"),
    [
        ("onnx", "OnnxPolicy", ["policy_accel", "torch", "onnx"], ""),
        ("torch", "TorchPolicy", ["policy_accel", "onnxruntime"], TENSORS),
    ],
)
def test_files_run_where_there_is_no_policy_accel(
    files: dict[str, Path], run_dir: Path, form: str, name: str, without: list[str], prepare: str
) -> None:
    run = Policy.load(run_dir, device="cpu", sampling_steps=1).run
    given = example_inputs(run.policy, run.sampler, 1, torch.float32)
    loader = files[form].with_name(f"a_{form}.py")
    code = LOADED_ALONE.format(without=without, name=name, prepare=prepare)
    listed = json.dumps({key: values.tolist() for key, values in given.items()})
    arguments = [sys.executable, "-W", "ignore", "-c", code, str(loader), str(files[form]), listed]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=files[form].parent)
    assert done.returncode == 0, done.stderr
    actions, acted, steps = json.loads(done.stdout)
    np.testing.assert_allclose(actions, predicted(run.policy, run.sampler, given).numpy(), atol=TOLERANCE)
    assert steps == 8 == len(actions[0])
    assert np.isfinite(acted).all()


def test_the_example_of_the_page_runs(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how_to" / "export.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "OnnxPolicy(" in block]
    for name, copied in (("a.onnx", "policy.onnx"), ("a_onnx.py", "policy_onnx.py")):
        shutil.copy(files["onnx"].with_name(name), tmp_path / copied)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["action"].shape == (2,)


def test_any_form_drives_as_the_run_and_says_what_it_takes(files: dict[str, Path], run_dir: Path) -> None:
    observation = np.array([1.0, -2.0, 0.5, 3.0, 0.1])
    expected = Policy.load(run_dir, device="cpu", sampling_steps=1)
    acted = [expected.act(observation) for _ in range(9)]
    for path in files.values():
        policy = Policy.load(path, device="cpu", trust=True)
        np.testing.assert_allclose([policy.act(observation) for _ in range(9)], acted, atol=TOLERANCE)
        again = Policy(pickle.loads(pickle.dumps(policy.run)))  # as a predicting process gets it
        np.testing.assert_array_equal(again.act(observation), Policy(policy.run).act(observation))
        about = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert about["sampler"] == "ddim"
        assert about["network_evaluations"] == 1
        if path.suffix != ".safetensors":
            assert about["inputs"]["state"]["shape"] == ["batch", 2, 5]
            assert about["inputs"]["noise"]["dtype"] == "float32"
            assert about["outputs"]["actions"]["fields"] == ["action"]
            np.testing.assert_allclose(
                about["outputs"]["actions"]["range"],
                expected.run.policy.action_normalizer.inverse(torch.tensor([[-1.0] * 2, [1.0] * 2])),
            )


def test_a_controller_drives_with_a_file_in_another_process(files: dict[str, Path]) -> None:
    observation = np.array([1.0, -2.0, 0.5, 3.0, 0.1])
    policy = Policy.load(files["onnx"], device="cpu")
    expected = policy.act(observation)
    with policy.controller(rate=10, process=True) as controller:
        controller.reset(seed=0)
        np.testing.assert_allclose(controller.act(observation), expected, atol=TOLERANCE)


def test_a_file_is_scored_as_its_run(files: dict[str, Path], run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--episodes", "1", "--seed", "3", "--workers", "0", "--videos", "0", "--json"]
    scores = []
    for path in (run_dir, files["onnx"]):
        steps = ["--sampling-steps", "1"] if path is run_dir else []
        assert main(["evaluate", str(path), *asked, *steps]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert main(["evaluate", str(files["onnx"]), *asked, "--delay-ms", "100", "--rate", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["network_evaluations"] == 1
    assert scores[0]["score"] == pytest.approx(scores[1]["score"], abs=1e-3)
    assert scores[1]["network_evaluations"] == 1
    kept = files["onnx"].with_name("a.onnx.evaluation") / "evaluations.jsonl"
    assert json.loads(kept.read_text().splitlines()[0])["score"] == scores[1]["score"]


def test_nothing_is_overwritten_and_nothing_is_left_of_what_fails(
    files: dict[str, Path], run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    before = files["onnx"].read_bytes()
    for words, told in (
        (["--to", "onnx", "--output", str(files["onnx"])], "exists already"),
        (["--to", "onnx", "--output", str(tmp_path / "a.bin")], "must end in .onnx"),
        (["--to", "torch", "--output", str(tmp_path / "b.pt2"), "--sampling-steps", "0"], "-steps 0 must be"),
    ):
        assert main(["export", str(run_dir), *words]) == 2
        assert told in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(run_dir), "--to", "onnx", "--output", str(tmp_path / "c.onnx")]) == 2
    assert to_install("export") in capsys.readouterr().err
    assert main(["export", str(files["onnx"]), "--to", "torch"]) == 2
    assert "exported already" in capsys.readouterr().err
    assert files["onnx"].read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_file_refuses_what_it_cannot_follow(files: dict[str, Path], tmp_path: Path) -> None:
    for settings, told in (
        ({"sampling_steps": 4}, "has its sampler inside"),
        ({"sampler": "euler"}, "has its sampler inside"),
        ({"warm_start": 0.5}, "samples from noise"),
        ({"precision": "bf16"}, "in its own precision"),
        ({"checkpoint": "best"}, "one set of weights; do not ask for checkpoint best"),
    ):
        with pytest.raises(UserError, match=told):
            Policy.load(files["onnx"], device="cpu", **settings)
    with pytest.raises(UserError, match="joining=inpainting cannot go on"):
        Policy.load(files["onnx"], device="cpu").controller(10, joining="inpainting")
    with pytest.warns(UserWarning, match="install onnxruntime-gpu"):
        assert onnx_session(files["onnx"], "cuda:0").get_providers() == ["CPUExecutionProvider"]
    assert Policy.load(files["safetensors"], device="cpu", sampling_steps=4).run.sampler.network_evaluations() == 4
    for form, path in files.items():
        broken = tmp_path / path.name
        for content in (b"", b"no such file", path.read_bytes()[: path.stat().st_size // 2]):
            broken.write_bytes(content)
            with pytest.raises(UserError, match=f"{broken}.*(damaged|did not write it)"):
                Policy.load(broken, device="cpu", trust=True)
        assert form


class OneBatch(Denoiser):
    """A network of a user, which can be traced for one batch alone."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Half of x."""
        return 0.5 * x.reshape(len(x), -1).view(x.shape)


class Reads(Denoiser):
    """One that cannot be traced."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """x, or its negative."""
        return x if float(x.sum()) > 0 else -x


def test_networks_of_a_user(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Policy.load(run_dir, device="cpu").run
    run.policy.denoiser = Reads()
    with pytest.raises(UserError, match="torch cannot trace it"):
        export_policy(run, tmp_path / "a.pt2", "torch")
    run.policy.denoiser = OneBatch()
    path = tmp_path / "b.pt2"
    assert export_policy(run, path, "torch")["inputs"]["state"]["shape"] == [1, 2, 5]
    given = example_inputs(run.policy, run.sampler, 3, torch.float32)
    found = ROBOT.load(path).policy.predict(given["state"], given["noise"], sampler=run.sampler)
    torch.testing.assert_close(found, predicted(run.policy, run.sampler, given))
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="does not do what the policy does"):
        export_policy(run, tmp_path / "c.pt2", "torch")
    assert {file.name for file in tmp_path.iterdir()} == {"b.pt2", "b.pt2.json", "b_torch.py"}


def test_it_is_said_how_long_the_way_to_onnx_takes(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> bytes:
        raise UserError("far enough")

    clock, said = iter([100.0, 120.0]), list[str]()
    monkeypatch.setattr(export, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(export, "traced", lambda *_: (None, (1,)))
    monkeypatch.setattr(export, "_onnx", refuse)
    run = Policy.load(run_dir, device="cpu", sampling_steps=2).run
    with pytest.raises(UserError, match="far enough"):
        export_policy(run, tmp_path / "a.onnx", "onnx", say=said.append)
    assert said == [
        "Tracing 2 evaluations of the network, all in one program.",
        "Traced in 20 s; bringing it to ONNX takes about 24 s more.",
    ]


def test_a_checkpoint_alone_is_loaded_with_the_configuration_of_its_run(run_dir: Path, tmp_path: Path) -> None:
    observation = np.array([1.0, -2.0, 0.5, 3.0, 0.1])
    expected = Policy.load(run_dir, device="cpu").act(observation)
    inside = run_dir / "checkpoints" / "last"
    np.testing.assert_array_equal(Policy.load(inside, device="cpu").act(observation), expected)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("state.json", "ema.safetensors"):
        (alone / name).write_bytes((inside / name).read_bytes())
    with pytest.raises(UserError, match=f"{alone} is a checkpoint without its run"):
        Policy.load(alone, device="cpu")
    (alone / "config.yaml").write_bytes((run_dir / "config.yaml").read_bytes())
    np.testing.assert_array_equal(Policy.load(alone, device="cpu").act(observation), expected)
    with pytest.raises(UserError, match="is a checkpoint already"):
        Policy.load(inside, checkpoint="best", device="cpu")


def test_a_program_is_loaded_when_it_is_trusted(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    """And not looked into before: a stranger's runs nothing."""
    with pytest.raises(UserError, match=r"a\.pt2 is a program, whose code would run here; give --trust .*trust=True"):
        Policy.load(files["torch"], device="cpu")
    assert main(["evaluate", str(files["torch"])]) == 2
    assert "is a program" in capsys.readouterr().err
    for form in ("onnx", "safetensors"):
        Policy.load(files[form], device="cpu")
