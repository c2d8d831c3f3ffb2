"""Arguments of `policy-accel data encode` and `data decode`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import AT_LEAST_0, AT_LEAST_1


def add_encode_arguments(encode: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel data encode`."""
    encode.add_argument("path", metavar="PATH", help="an image set of any known form; shipped:NAME ships")
    encode.add_argument(
        "--autoencoder", type=Path, required=True, metavar="FOLDER", help="of a diffusers AutoencoderKL in safetensors"
    )
    encode.add_argument("--output", type=Path, required=True, metavar="FILE", help="new NPZ")
    encode.add_argument("--resolution", type=AT_LEAST_1, help="crop and resize the images, as task.resolution does")
    encode.add_argument(
        "--posterior",
        choices=("moments", "mean", "sample"),
        default="moments",
        help="keep mean and deviation, of which training draws latents anew (moments, default), the mean, or one draw",
    )
    encode.add_argument("--seed", type=AT_LEAST_0, default=0, help="of --posterior sample (default: 0)")
    encode.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="default: float32")
    encode.add_argument(
        "--skip-bad-images", action="store_true", help="leave out images that cannot be read, and list them"
    )
    _add_common(encode)
    encode.set_defaults(run="latents:run_encode")


def add_decode_arguments(decode: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel data decode`."""
    decode.add_argument("path", metavar="PATH", help="latents; of moments the means are decoded")
    decode.add_argument("--autoencoder", type=Path, metavar="FOLDER", help="default: the one that the latents name")
    decode.add_argument("--output", type=Path, required=True, metavar="FILE", help="new NPZ of images")
    _add_common(decode)
    decode.set_defaults(run="latents:run_decode")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=AT_LEAST_1, default=16, help="images at a time (default: 16)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
