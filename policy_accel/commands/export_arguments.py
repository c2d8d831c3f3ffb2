"""The arguments of `policy-accel export`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.overview import Readable
from policy_accel.commands.sampling_arguments import add_sampling_arguments
from policy_accel.commands.trust_arguments import add_trust

FORMS = ("onnx", "torch", "safetensors", "diffusers")
WEIGHTS = ("fp32", "bf16", "int8")


def add_export_arguments(export: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel export`."""
    export.formatter_class = Readable
    export.description = (
        "Write a trained policy to one file that runs without policy_accel: from observations and noise to actions,\n"
        "with the normalisers, the networks and every step of the sampler. A JSON file beside it says what it takes,\n"
        "and a short Python file drives a robot with it. An image model is written to a folder: to one of\n"
        "diffusers, or as safetensors with a model card. Nothing is overwritten."
    )
    export.epilog = (
        "examples:\n"
        "  policy-accel export RUN --to onnx --sampling-steps 4\n"
        "  policy-accel export RUN --to onnx --weights int8 --output small.onnx\n"
        "  policy-accel evaluate small.onnx --episodes 100\n"
        "  policy-accel export IMAGE_RUN --to diffusers --output my_pipeline"
    )
    export.add_argument("run_dir", type=Path, metavar="RUN", help="run_dir, or a folder of its checkpoints")
    export.add_argument(
        "--to",
        required=True,
        choices=FORMS,
        help="onnx: for onnxruntime. torch: a .pt2 of torch.export. safetensors: the weights alone, for Policy.load. "
        "diffusers: a pipeline of an image model",
    )
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="new file (default: RUN/exported/, named by step and sampler)"
    )
    export.add_argument(
        "--weights", choices=WEIGHTS, default="fp32", help="how they are kept (default: fp32); computed is in fp32"
    )
    export.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    export.add_argument("--average", help="which average of the weights (default: ema)")
    add_sampling_arguments(export, "a chunk")
    export.add_argument("--untuned", action="store_true", help="as config.yaml says, not as tune-sampling chose")
    export.add_argument("--json", action="store_true", help="print what the file says of itself as one JSON object")
    add_trust(export)
    export.set_defaults(run="export:run_export")
