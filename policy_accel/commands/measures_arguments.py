"""Arguments of `policy-accel evaluate` for image models. It imports nothing heavy."""

from __future__ import annotations

import argparse

from policy_accel.commands.guidance_arguments import add_guidance
from policy_accel.commands.numbers import AT_LEAST_1, IMAGES_OR_NONE
from policy_accel.commands.sampling_arguments import add_churn
from policy_accel.images.scoring.protocol import PROTOCOLS


def add_measures_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are drawn and what they are measured against."""
    images = parser.add_argument_group("image models")
    images.add_argument("--samples", type=IMAGES_OR_NONE, help="number of images (of each draw)")
    images.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        help="plain (default), one draw, or edm, EDM's: three draws of 50,000 images, or as many as --samples says, of "
        "whose FIDs the lowest counts",
    )
    images.add_argument("--batch-size", type=AT_LEAST_1, help="images generated at a time")
    add_guidance(images)
    add_churn(images)
    images.add_argument("--inception", metavar="FILE", help="local weights of the Inception network, for FID")
    images.add_argument(
        "--reference", metavar="FILE", help="NPZ with mu and sigma for the FID, as EDM's fid-refs (default: the data)"
    )
    images.add_argument(
        "--mirrored-reference",
        action="store_true",
        default=None,
        help="Fréchet distances to the training images and their mirror images",
    )
    images.add_argument("--resnet", metavar="FILE", help="local weights of a CIFAR ResNet, for FD-ResNet")
