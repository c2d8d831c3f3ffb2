"""`policy-accel demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from policy_accel.commands.arguments import build_parser
from policy_accel.commands.output import suggest, words_of
from policy_accel.commands.train import say, train
from policy_accel.configuration import source_of
from policy_accel.errors import UserError, did_you_mean
from policy_accel.launched import speaks
from policy_accel.parsing import read_record
from policy_accel.track import track

DEMOS = {"pusht": "robot", "images": "images"}
"""The demos and their tracks."""


def run_demo(options: argparse.Namespace) -> int:
    """Train and score a model on the data that ship; of a policy also show what fewer evaluations of it cost."""
    overrides = demo_overrides(options.overrides)
    chosen = track(source_of(overrides, options.config_dir).track)
    config = chosen.config(overrides, options.config_dir, say)
    status = train(chosen, config, words_of(options))
    if chosen.name == "robot" and speaks():
        run_dir = Path(config.run_dir)
        print("\n".join(evaluations_table(list(scores(run_dir)), run_dir)))
    suggest("train on data of your own, first see what they hold", ["data", "inspect", "PATH"])
    return status


def demo_overrides(arguments: Sequence[str]) -> list[str]:
    """Overrides of a demo: its name, `pusht` when none is given, and settings on top of it."""
    name, overrides = ("pusht", arguments) if not arguments or "=" in arguments[0] else (arguments[0], arguments[1:])
    if name not in DEMOS:
        raise UserError(f"there is no demo '{name}'; {did_you_mean(name, DEMOS)}")
    return [f"recipe={track(DEMOS[name]).demo}", *overrides]


def scores(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The score of the run, and those with two evaluations and one on the same episodes, which are not kept.

    One that its settings do not allow is left out, with the reason.
    """
    path = run_dir / "evaluation.json"
    if not path.is_file():
        return
    yield read_record(path, "score the run again with `policy-accel evaluate`")
    print("Scoring with fewer evaluations of the network", file=sys.stderr)
    for few in (["--sampling-times", "99,25"], ["--sampling-steps", "1"]):
        options = build_parser().parse_args(["evaluate", str(run_dir), *few, "--videos", "0"])
        try:
            yield track("robot").evaluate(run_dir, options, lambda line: None)
        except UserError as error:  # settings of the user's own may leave no such sampling
            print(f"Not scored with {' '.join(few)}: {error}", file=sys.stderr)


def evaluations_table(results: Sequence[dict[str, Any]], run_dir: Path) -> list[str]:
    """Lines that set the scores of the same policy with different numbers of evaluations side by side.

    Args:
        results: of `evaluate`.
        run_dir: of the policy.
    """
    if not results:
        return []
    lines = ["What fewer evaluations of the network cost, on the same starts:"]
    lines.append(
        f"  {'evaluations a chunk':<22}{'score':>6}  {'95 % interval':<16}{'ms for a chunk of every episode':>32}"
    )
    for result in results:
        low, high = result["score_interval"]
        taken = result["chunk_milliseconds"]["median"]
        times = result.get("sampling_times")
        name = f"{result['network_evaluations']}" + (f" (times {', '.join(map(str, times))})" if times else "")
        lines.append(f"  {name:<22}{result['score']:>6.3f}  {f'{low:.3f} to {high:.3f}':<16}{taken:>32.1f}")
    lines.append(f"policy-accel distill {run_dir} --evaluations 1 trains one of them to do for all")
    return lines
