"""A trained policy as one file that runs without policy_accel: ONNX or torch.export, or its weights as safetensors."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.policy.run import LoadedRun
from policy_accel.robot.exporting.about import KEY, PT2_ENTRY, SUFFIXES
from policy_accel.robot.exporting.compression import Compressed
from policy_accel.robot.exporting.description import about_of
from policy_accel.robot.exporting.session import check_onnx, onnx_session
from policy_accel.robot.exporting.whole import ACTIONS, NOISE, PLAN, WholePrediction, example_inputs

TOLERANCE = 1e-4
"""By which a normalised trajectory of the file may differ from ours."""
ONNX_SHARE = 0.6
"""How much longer than the trace the rest takes, for each evaluation: decompositions and onnxscript's optimiser grow
faster than the program. 1, 4 and 8 evaluations of a U-Net of 0.8 million parameters took 1.0, 2.5 and 4.8 times."""
LARGEST_ONNX = 2**31 - 1
LOADERS = {form: Path(__file__).with_name(f"{form}_policy.py") for form in ("onnx", "torch")}
"""Form -> the file that drives a robot with it, not imported here: one of them needs onnxruntime."""


def export_policy(
    run: LoadedRun, path: Path, form: str, *, weights: str = "fp32", say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Write a policy as it is sampled to a file, what it says of itself to a JSON file beside it, and a loader to a
    Python file; returns what it says.

    The file is run, and what it gives is compared with the policy, before any of the three appears.

    Args:
        run: on the CPU.
        path: of the file, which must not exist, and end as its form demands.
        form: onnx, torch or safetensors.
        weights: of `WEIGHTS`.
        say: takes lines for the user while it goes on.

    Raises:
        UserError: a file that is there already; a network, sampler or picture that cannot be exported; a result that
            differs from the policy's by more than `TOLERANCE`; a package that is missing.
    """
    if path.suffix != SUFFIXES[form]:
        raise UserError(f"--output {path} must end in {SUFFIXES[form]}, as --to {form} asks.")
    if form == "onnx":
        check_onnx()  # before the trace, which takes a while
    with contextlib.ExitStack() as files:
        written = [files.enter_context(new_path(name)) for name in (path, *companions(path, form))]
        content, about = as_safetensors(run, weights) if form == "safetensors" else _whole(run, form, weights, say)
        written[0].write_bytes(content)
        written[1].write_text(json.dumps(public(about), indent=1) + "\n")
        if form in LOADERS:
            shutil.copyfile(LOADERS[form], written[2])
    return public(about)


def companions(path: Path, form: str) -> tuple[Path, ...]:
    """What is written beside an exported file: JSON, and the loader of a form that has one."""
    facts = path.with_name(f"{path.name}.json")
    return (facts, path.with_name(f"{path.stem}_{form}.py")) if form in LOADERS else (facts,)


def public(about: dict[str, Any]) -> dict[str, Any]:
    """What an export says, without that from which only we load it."""
    return {name: value for name, value in about.items() if name != "policy"}


def _whole(run: LoadedRun, form: str, weights: str, say: Callable[[str], None]) -> tuple[bytes, dict[str, Any]]:
    policy, sampler = run.policy, run.sampler
    if NOISE in policy.images or PLAN in policy.images or ACTIONS in policy.images:
        raise UserError(f"task.images={list(policy.images)} has a name of the export's own; rename that picture.")
    whole = WholePrediction(policy, sampler, weights).eval()
    count, began = sampler.network_evaluations(), time.perf_counter()
    say(f"Tracing {count} evaluation{'s' * (count != 1)} of the network, all in one program.")
    dtype = torch.float64 if policy.observation_normalizer.center.any() else torch.float32
    program, batches = traced(whole, [example_inputs(policy, sampler, batch, dtype) for batch in (2, 1)])
    if form == "onnx":
        spent = time.perf_counter() - began
        say(f"Traced in {spent:.0f} s; bringing it to ONNX takes about {ONNX_SHARE * count * spent:.0f} s more.")
    example = example_inputs(policy, sampler, 1, dtype)
    outputs = dict(zip((ACTIONS, PLAN), whole(*example.values()), strict=True))
    about = about_of(run, example, outputs, weights=weights, form=form, batch="any" if len(batches) > 1 else 1)
    content = {"onnx": _onnx, "torch": _pt2}[form](program, whole.inputs, about)
    differences = [
        _difference(content, form, whole, example_inputs(policy, sampler, batch, dtype)) for batch in batches
    ]
    if not max(differences) <= TOLERANCE:
        raise UserError(
            f"the exported file does not do what the policy does: a normalised trajectory differs by "
            f"{max(differences):.2g}, and {TOLERANCE:g} is allowed; export to another form."
        )
    return content, about


def traced(whole: WholePrediction, examples: list[dict[str, Tensor]]) -> tuple[Any, tuple[int, ...]]:
    """What is traced, for any batch where the network allows that, else for one; and batches to try it with."""
    dynamic: Any = (tuple({0: torch.export.Dim("batch")} for _ in whole.inputs),)
    with torch.no_grad(), quiet():
        whole(*examples[0].values())  # what a first call makes is there when it is traced
        try:
            program = torch.export.export(whole, tuple(examples[0].values()), dynamic_shapes=dynamic)
            return program, (1, 3)
        except Exception:  # torch has many for this; a network of somebody's own may be for one batch alone
            try:
                return torch.export.export(whole, tuple(examples[1].values())), (1,)
            except Exception as error:
                raise UserError(
                    f"this policy cannot be exported: torch cannot trace it ({first_line(error)}). Its network or "
                    "sampler reads values of tensors; export it to safetensors, or rewrite that part."
                ) from error


def _onnx(program: Any, inputs: tuple[str, ...], about: dict[str, Any]) -> bytes:
    return onnx_of(program, inputs, (ACTIONS, PLAN), {KEY: json.dumps(about)})


def onnx_of(
    program: Any, inputs: Sequence[str], outputs: Sequence[str], metadata: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """A traced program as the content of an ONNX file.

    Raises:
        UserError: a package is missing, ONNX has no form of a part of it, or it is too large.
    """
    check_onnx()
    try:
        with quiet():
            made = torch.onnx.export(program, (), dynamo=True, verbose=False, input_names=inputs, output_names=outputs)
    except Exception as error:
        raise UserError(
            f"this policy cannot be brought to ONNX, which has no form of a part of it ({first_line(error)}); use "
            "--to torch, or no compile=True."
        ) from error
    assert made is not None
    for node in made.model.graph:
        node.metadata_props.clear()  # lines of our source
    made.model.metadata_props.update(metadata)
    content: bytes = made.model_proto.SerializeToString()
    if len(content) > LARGEST_ONNX:
        raise UserError("the policy is larger than one ONNX file may be, 2 GiB; use --to torch, or --weights int8.")
    return content


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _pt2(program: Any, inputs: tuple[str, ...], about: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files={PT2_ENTRY: json.dumps(about)})
    return file.getvalue()


def _difference(content: bytes, form: str, whole: WholePrediction, given: dict[str, Tensor]) -> float:
    """Largest difference of a normalised trajectory of the file from that of the policy it was made of."""
    with torch.no_grad(), quiet():
        _, ours = whole(*given.values())
        if form == "onnx":
            session = onnx_session(content, threads=torch.get_num_threads())
            plan = torch.from_numpy(session.run([PLAN], {name: value.numpy() for name, value in given.items()})[0])
        else:
            plan = torch.export.load(io.BytesIO(content)).module()(*given.values())[1]
    return float((plan.double() - ours.double()).abs().amax())


def as_safetensors(run: LoadedRun, weights: str = "fp32", **facts: Any) -> tuple[bytes, dict[str, Any]]:
    """The weights of a policy as the content of a file, and what that says of itself, with more `facts`."""
    tensors = {
        f"{name}.{part}".rstrip("."): values.contiguous()
        for name, tensor in run.policy.state_dict().items()
        for part, values in Compressed.of(name, tensor, weights).tensors.items()
    }
    about = about_of(run, {}, {}, weights=weights, form="safetensors", batch="any", **facts)
    return safetensors.torch.save(tensors, {KEY: json.dumps(about)}), about


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from the user what exporters say of themselves."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
