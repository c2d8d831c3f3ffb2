"""The command `policy-accel`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from policy_accel.errors import UserError

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Arguments of every command."""
    parser = argparse.ArgumentParser(
        prog="policy-accel", description="Train diffusion policies on demonstrations and score them in simulation."
    )
    parser.add_argument("--version", action="version", version=f"policy-accel {version('policy-accel')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train and score a policy on the demonstrations that ship")
    demo.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    demo.set_defaults(run=_demo)

    train = commands.add_parser(
        "train",
        help="train a policy and score it; start the same command again to continue",
        description="Train a policy on demonstrations and score it in rollouts. A run that was stopped continues when "
        "the same command is started again.",
        epilog="examples:\n"
        "  policy-accel train task=pusht_state training.steps=4000\n"
        "  policy-accel train recipe=diffusion_policy task.data=PATH\n"
        "  policy-accel train model=transformer --print-config\n"
        "tasks:   pusht_keypoints (default), pusht_state, custom\n"
        "recipes: small (default), demo, diffusion_policy, diffusion_policy_transformer\n"
        "models:  unet, unet_small, transformer, mlp\n"
        "methods: baseline (default), recommended, everything,\n"
        "         immiscible, immiscible_knn, immiscible_dot, immiscible_policy, immiscible_groups, immiscible_c2ot,\n"
        "         immiscible_residual, immiscible_denoiser, immiscible_scaling,\n"
        "         kl, kl_partial, kl_independent, kl_fresh, kl_schedule,\n"
        "         fdm, fdm_cap, fdm_cap_only, fdm_sigma, fdm_one, fdm_schedule,\n"
        "         edm, vp, ve, fdm_edm, fdm_vp, fdm_ve, fdm_edm_no_cap, fdm_edm_cap_only, fdm_edm_one, flow,\n"
        "         clts, clts_wide, clts_sharp, clts_unbiased, stratified, logit_normal, speed, loss_second_moment,\n"
        "         min_snr, p2, momentum_decay, momentum_decay_control, momentum_decay_only, consistency",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="configuration, for example training.steps=2000"
    )
    train.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="score a trained policy")
    evaluate.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="run_dir of a training run")
    evaluate.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    evaluate.add_argument("--episodes", type=int, help="number of episodes")
    evaluate.add_argument("--seed", type=int, help="seed of the first episode")
    evaluate.add_argument("--noise-seed", type=int, help="seed of the sampler's noise")
    evaluate.add_argument("--sampler", help="ddpm, ddim, dpm_solver++, euler or heun")
    evaluate.add_argument("--sampling-steps", type=int, help="steps of the sampler for a chunk")
    evaluate.add_argument("--spacing", help="leading, trailing or linspace")
    evaluate.add_argument("--workers", type=int, help="processes for the environments")
    evaluate.add_argument("--videos", type=int, help="number of episodes to film")
    evaluate.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    evaluate.set_defaults(run=_evaluate)

    diagnose = commands.add_parser(
        "diagnose",
        help="measure on your demonstrations what each method would change, before any training",
        description="Measure on demonstrations, before any training, what each method would change: does a choice of "
        "noise tell the observation, which noise levels are trained on, where the loss is noisy. Prints a table with a "
        "recommendation and writes diagnosis.json and diagnosis.png.",
        epilog="examples:\n"
        "  policy-accel diagnose data/pusht.zip\n"
        "  policy-accel diagnose PATH task=custom 'task.observation=[state]' task.action=action",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diagnose.add_argument("dataset", metavar="DATASET", help="replay buffer: a zarr folder or zip")
    diagnose.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    diagnose.add_argument("--output", type=Path, metavar="DIR", help="folder (default: diagnosis/NAME of the data)")
    diagnose.add_argument("--rows", type=int, help="windows to look at (default: 4096)")
    diagnose.set_defaults(run=_diagnose)

    data = commands.add_parser("data", help="inspect, fetch or generate demonstrations")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="say what a replay buffer holds and what is wrong with it")
    inspect.add_argument("path", type=Path, help="replay buffer: a zarr folder or zip")
    inspect.set_defaults(run=_inspect)
    fetch = actions.add_parser("fetch", help="download a public set; continues a download that was cut off")
    fetch.add_argument("name", help="name of the set, for example pusht")
    fetch.add_argument("--to", type=Path, default=Path("data"), metavar="DIR", help="folder (default: data)")
    fetch.set_defaults(run=_fetch)
    generate = actions.add_parser("generate", help="record demonstrations of a scripted expert")
    generate.add_argument("task", choices=["pusht"])
    generate.add_argument("--episodes", type=int, required=True)
    generate.add_argument("--seed", type=int, required=True)
    generate.add_argument("--output", type=Path, help="replay buffer to write (default: TASK_EPISODES_SEED.zarr.zip)")
    generate.add_argument("--workers", type=int, default=-1, help="processes (default: one for each core)")
    generate.set_defaults(run=_generate)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 after a mistake that was named, 130 after Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UserError as error:
        print(f"policy-accel: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("policy-accel: stopped.", file=sys.stderr)
        return INTERRUPTED


def _again(command: str, overrides: Sequence[str]) -> str:
    """The command line that was started, as the user can start it again."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "policy-accel" else "policy-accel"
    return shlex.join([program, command, *overrides])


def _demo(options: argparse.Namespace) -> int:
    from policy_accel.commands.train import run_train

    return run_train(["recipe=demo", *options.overrides], again=_again("demo", options.overrides))


def _train(options: argparse.Namespace) -> int:
    from policy_accel.commands.train import print_config, run_train

    if options.print_config:
        return print_config(options.overrides)
    return run_train(options.overrides, again=_again("train", options.overrides))


def _evaluate(options: argparse.Namespace) -> int:
    from policy_accel.commands.evaluate import run_evaluate

    return run_evaluate(options)


def _diagnose(options: argparse.Namespace) -> int:
    from policy_accel.commands.diagnose import run_diagnose

    return run_diagnose(options.dataset, options.overrides, output=options.output, rows=options.rows)


def _inspect(options: argparse.Namespace) -> int:
    from policy_accel.commands.data import run_inspect

    return run_inspect(options.path)


def _fetch(options: argparse.Namespace) -> int:
    from policy_accel.commands.data import run_fetch

    return run_fetch(options.name, options.to)


def _generate(options: argparse.Namespace) -> int:
    from policy_accel.commands.data import run_generate

    return run_generate(options.task, options.episodes, options.seed, options.output, options.workers)


if __name__ == "__main__":
    sys.exit(main())
