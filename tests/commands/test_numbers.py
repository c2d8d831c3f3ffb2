from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import pytest

from policy_accel.cli import main
from policy_accel.commands.arguments import build_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from parsers(part)


def test_every_number_has_a_range() -> None:
    actions = [action for parser in parsers(build_parser()) for action in parser._actions]
    assert [action.option_strings for action in actions if action.type in (int, float)] == []


REFUSED = {
    "evaluate run --seed -1": "--seed -1 must be at least 0.",
    "evaluate run --episodes 0": "--episodes 0 must be at least 1.",
    "evaluate run --workers -2": "--workers -2 must be at least -1.",
    "evaluate run --delay-ms nan": "--delay-ms nan must be finite.",
    "evaluate run --rate 0": "--rate 0 must be above 0.",
    "evaluate run --guidance inf": "--guidance inf must be finite.",
    "evaluate run --batch-size 0": "--batch-size 0 must be at least 1.",
    "evaluate run --seed 9223372036854775808": "--seed 9223372036854775808 must be at most 9223372036854775807.",
    "sample run --count 0": "--count 0 must be at least 1.",
    "sample run --strength 1.5": "--strength 1.5 must be above 0 and at most 1.",
    "sample run --start -1": "--start -1 must be at least 0.",
    "compare run --confidence 95": "--confidence 95 must lie between 0 and 1, for example 0.95.",
    "compare run --difference inf": "--difference inf must be finite.",
    "serve run --port 70000": "--port 70000 must lie between 0 and 65535.",
    "diagnose data --rows 0": "--rows 0 must be at least 1.",
    "data generate pusht --episodes -3": "--episodes -3 must be at least 1.",
    "data generate shapes --images 4 --seed 1 --size 0": "--size 0 must be at least 1.",
    "tune-sampling run --tolerance nan": "--tolerance nan must be finite.",
    "benchmark latency run --seconds inf": "--seconds inf must be finite.",
    "benchmark latency run --calls 9": "--calls 9 must be at least 10.",
    "benchmark sample run --calls 2": "--calls 2 must be at least 3.",
    "sample run --count 4611686018427387904": "--count 4611686018427387904 must lie between 1 and 100000000.",
    "evaluate run --samples 1000000000": "--samples 1000000000 must lie between 0 and 100000000.",
}


@pytest.mark.parametrize("line", REFUSED)
def test_numbers_out_of_their_range_are_refused_first(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"policy-accel: {REFUSED[line]}")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sample run --count many", "argument --count: 'many' is no whole number"),
        ("sample run --count 1.5", "argument --count: '1.5' is no whole number"),
        ("sample run --churn 40,nan", "40,nan is not S, MIN, MAX and NOISE; write them as 40,0.05,50,1.003"),
        ("sample run --sampling-times 99,inf", "99,inf is not a list of times; write them as 99,25"),
        ("sample run --guidance-interval nan,3", "'nan,3' is not LOW,HIGH, two numbers such as 0.3,3"),
        ("sample run --guidance-interval inf,inf", "'inf,inf' is not LOW,HIGH, two numbers such as 0.3,3 or 0.3,inf"),
        ("evaluate run --rate fast", "argument --rate: 'fast' is no number"),
    ],
)
def test_what_is_no_number_is_said(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(line.split())
    assert sentence in capsys.readouterr().err


def test_upper_bounds_may_be_infinite() -> None:
    line = "sample run --churn 40,0,inf,1.003 --guidance-interval 0.3,inf"
    options = build_parser().parse_args(line.split())
    assert options.churn == [40.0, 0.0, math.inf, 1.003]
    assert options.guidance_interval == [0.3, math.inf]
