"""Arguments of `policy-accel sample`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.guidance_arguments import add_guidance
from policy_accel.commands.numbers import AT_LEAST_0, AT_LEAST_1, IMAGES, SHARE
from policy_accel.commands.overview import Readable
from policy_accel.commands.sampling_arguments import add_churn, add_sampling_arguments

COUNT = 64
EDIT_STRENGTH = 0.5


def add_sample_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.formatter_class = Readable
    parser.epilog = (
        "examples:\n"
        "  policy-accel sample RUN --per-class 8 --guidance 2 --guidance-interval 0.3,3\n"
        "  policy-accel sample RUN --count 50000 --npz --sampler heun --sampling-steps 18\n"
        "  policy-accel sample RUN --edit sketch.png --strength 0.6 --labels cat --count 8\n"
        "  policy-accel sample RUN --inpaint photo.png --mask 8,8,24,24 --count 8"
    )
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN", help="run_dir of images, or a model of EDM, EDM2, DiT or diffusers"
    )
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--count", type=IMAGES, help=f"number of images (default: {COUNT}; one of each given picture)")
    number.add_argument(
        "--per-class", type=IMAGES, metavar="N", help="N images of each class of --labels, and grids by class"
    )
    parser.add_argument("--seed", type=AT_LEAST_0, default=0, help="image i follows from (seed, i) (default: 0)")
    parser.add_argument("--start", type=AT_LEAST_0, default=0, metavar="I", help="first i (default: 0)")
    parser.add_argument("--labels", help="classes, by name or number, taken in turn: 3, 0,1,2 or all (default: all)")
    add_guidance(parser)
    add_sampling_arguments(parser, "an image")
    add_churn(parser)
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--average", metavar="NAME", help="which average of the weights (default: ema)")
    parser.add_argument("--batch-size", type=AT_LEAST_1, help="images at a time; does not change them beyond rounding")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder (default: RUN/generated/NUMBER)")
    parser.add_argument("--png", action="store_true", help="write each image as a PNG too")
    parser.add_argument(
        "--npz",
        nargs="?",
        const="plain",
        choices=["plain", "adm"],
        help="write samples.npz too: images and labels, or with adm arr_0 and arr_1",
    )
    parser.add_argument("--video", action="store_true", help="film how the grid forms from noise")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--edit", type=Path, metavar="PATH", help="a picture, or a folder of some, to start from")
    given.add_argument("--inpaint", type=Path, metavar="PATH", help="a picture, or a folder of some, to paint into")
    parser.add_argument(
        "--strength", type=SHARE, help=f"share of the steps from a picture (default: {EDIT_STRENGTH}; in-painting 1)"
    )
    parser.add_argument("--mask", metavar="PNG|BOX", help="what to paint: white in a PNG, or a box x0,y0,x1,y1")
    parser.add_argument(
        "--resamplings",
        type=AT_LEAST_1,
        default=1,
        metavar="R",
        help="take each step of an in-painting R times, which fits it better to its surroundings (sampler ddpm)",
    )
