"""Arguments that say how a trained model is sampled, see `AskedSampling`. It imports nothing heavy."""

from __future__ import annotations

import argparse

from policy_accel.commands.numbers import AT_LEAST_1, NUMBER, UPPER_BOUND


def add_sampling_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """--sampler, --sampling-steps or --sampling-times, --spacing; `what` is made: "a chunk"."""
    parser.add_argument("--sampler", help="sampler, as sampling.sampler of train")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--sampling-steps", type=AT_LEAST_1, metavar="K", help=f"steps of the sampler for {what}")
    steps.add_argument(
        "--sampling-times",
        type=_times,
        metavar="T,T,...",
        help="times of the steps, noisy to clean, as sampling.times of train: 99,25",
    )
    parser.add_argument("--spacing", help="leading, trailing or linspace")


def add_churn(parser: argparse._ActionsContainer) -> None:
    """--churn, for images alone: policies take it from their configuration."""
    parser.add_argument(
        "--churn",
        type=_churn,
        metavar="S[,MIN[,MAX[,NOISE]]]",
        help="noise that heun adds before its steps, as sampling.churn, .churn_min, .churn_max and .churn_noise of "
        "train: 40,0.05,50,1.003; 0 for none",
    )


def _churn(text: str) -> list[float]:
    try:
        values = [(UPPER_BOUND if place == 2 else NUMBER)(part) for place, part in enumerate(text.split(","))]
    except (ValueError, argparse.ArgumentTypeError):
        values = []
    if not 1 <= len(values) <= 4:
        raise argparse.ArgumentTypeError(f"{text} is not S, MIN, MAX and NOISE; write them as 40,0.05,50,1.003")
    return values


def _times(text: str) -> list[int | float]:
    try:
        return [int(part) if part.strip().isdigit() else NUMBER(part) for part in text.split(",")]
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text} is not a list of times; write them as 99,25") from None
