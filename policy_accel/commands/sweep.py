"""`policy-accel sweep`."""

from __future__ import annotations

import argparse
import shlex
import sys

from policy_accel.commands.output import again, suggest, words_of
from policy_accel.errors import UserError
from policy_accel.sweep.folder import DONE, Sweep, read_sweep
from policy_accel.sweep.screen import summary, table
from policy_accel.sweep.standing import standings

SOME_LEFT = 1


def run_sweep(options: argparse.Namespace) -> int:
    """Train the runs of a sweep, or go on with it; or show how one stands; 1 when a run is not done at the end."""
    if options.status is not None:
        if options.overrides:
            raise UserError(f"--status shows a sweep and takes no settings; drop {options.overrides[0]}.")
        print(_shown(read_sweep(options.status)))
        return 0
    if not options.overrides:
        raise UserError("say what is to vary, for example `policy-accel sweep task=pusht_keypoints seed=1,2,3`.")
    from policy_accel.sweep.carry_out import carry_out
    from policy_accel.sweep.prepare import check, read_order

    order = read_order(options.overrides, options.config_dir)
    print(f"Checking configurations: {len(order.runs)}", file=sys.stderr)
    configs = check(order)
    if options.dry_run:
        print("\n".join(f"{name}: {shlex.join(overrides)}" for name, overrides in order.runs.items()))
        return 0
    sweep, stopped = carry_out(order, configs)
    print(_shown(sweep))
    if stopped:
        print(f"Stopped. To go on: {again(words_of(options))}", file=sys.stderr)
        raise KeyboardInterrupt
    left = [name for name in sweep.runs if sweep.job(name).state != DONE]
    if left:
        print(f"{len(left)} not done ({sweep.log(left[0])}). To try again: {again(words_of(options))}", file=sys.stderr)
        return SOME_LEFT
    arms = {tuple(word for word in run.overrides if not word.startswith("seed=")) for run in sweep.runs.values()}
    if len(arms) > 1:
        suggest("tell which of them is better", ["compare", sweep.folder])
    else:
        suggest("see them on one page", ["report", sweep.folder])
    return 0


def _shown(sweep: Sweep) -> str:
    runs = standings(sweep)
    return "\n".join([f"{sweep.folder}: {summary(runs)}", *table(runs)])
