"""The command `policy-accel`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from policy_accel.commands.convert import add_convert_arguments
from policy_accel.commands.generate import add_generate_arguments
from policy_accel.commands.sample import add_sample_arguments
from policy_accel.errors import UserError

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Arguments of every command."""
    parser = argparse.ArgumentParser(
        prog="policy-accel",
        description="Train diffusion policies on demonstrations and score them in simulation; train image diffusion "
        "models and measure what they make.",
    )
    parser.add_argument("--version", action="version", version=f"policy-accel {version('policy-accel')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train and score a model on the data that ship")
    demo.add_argument(
        "overrides", nargs="*", metavar="[pusht|images] KEY=VALUE", help="which (default: pusht); settings as for train"
    )
    _add_config_dir(demo)
    demo.set_defaults(run=_demo)

    train = commands.add_parser(
        "train",
        help="train a policy or an image model and score it; start the same command again to continue",
        description="Train a policy on demonstrations and score it in rollouts, or train an image model and measure "
        "the images it makes. A run that was stopped continues when the same command is started again.",
        epilog="examples:\n"
        "  policy-accel train task=pusht_state training.steps=4000\n"
        "  policy-accel train recipe=diffusion_policy task.data=PATH\n"
        "  policy-accel train model=transformer --print-config\n"
        "  policy-accel train task=cifar10 recipe=ddpm_cifar10 task.data=PATH\n"
        "  policy-accel train task=mnist method=immiscible_knn\n"
        "  policy-accel train task=./mine.yaml plugins=[my_module]\n"
        "`policy-accel list tasks` names the tasks; so it does recipes, methods and models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="configuration, for example training.steps=2000"
    )
    _add_config_dir(train)
    train.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    train.set_defaults(run=_train)

    add_evaluate_arguments(commands.add_parser("evaluate", help="score a trained policy or image model"))
    sample = commands.add_parser("sample", help="generate, edit or in-paint images with a trained image model")
    add_sample_arguments(sample)
    _add_plugins(sample)
    sample.set_defaults(run=_sample)

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
    diagnose.add_argument("dataset", metavar="DATASET", help="demonstrations in any known format")
    diagnose.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    _add_config_dir(diagnose)
    diagnose.add_argument("--output", type=Path, metavar="DIR", help="folder (default: diagnosis/NAME of the data)")
    diagnose.add_argument("--rows", type=int, help="windows to look at (default: 4096)")
    diagnose.set_defaults(run=_diagnose)

    lists = commands.add_parser("list", help="name the tasks, recipes, methods or models")
    lists.add_argument("kind", metavar="KIND", help="tasks, recipes, methods, models, or a group as acceleration/noise")
    _add_config_dir(lists)
    _add_plugins(lists)
    lists.set_defaults(run=_list)

    data = commands.add_parser("data", help="inspect, fetch, convert or generate demonstrations and image sets")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="say what demonstrations or an image set hold, and what is wrong")
    inspect.add_argument("path", help="demonstrations of any known format or an image set; shipped:NAME ships")
    inspect.add_argument("--resolution", type=int, help="of an image set: crop and resize as task.resolution does")
    inspect.set_defaults(run=_inspect)
    fetch = actions.add_parser("fetch", help="download a public set; continues a download that was cut off")
    fetch.add_argument("name", help="name of the set, for example pusht, cifar10 or mnist")
    fetch.add_argument("--to", type=Path, default=Path("data"), metavar="DIR", help="folder (default: data)")
    fetch.set_defaults(run=_fetch)
    convert = actions.add_parser("convert", help="write demonstrations in another format")
    add_convert_arguments(convert)
    convert.set_defaults(run=_convert)
    generate = actions.add_parser("generate", help="record demonstrations of a scripted expert, or draw shapes")
    add_generate_arguments(generate)
    return parser


def _add_config_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="folder of your own task/, recipe/, method/ and model/*.yaml"
    )


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugins",
        type=lambda names: names.split(","),
        default=[],
        metavar="MODULES",
        help="modules of yours to import first, as plugins=[...] of train; a run's own are not imported unasked",
    )


def add_evaluate_arguments(evaluate: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel evaluate`; those of one kind of run are refused for the other."""
    evaluate.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="run_dir of a training run; several make a table"
    )
    _add_plugins(evaluate)
    evaluate.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    evaluate.add_argument("--seed", type=int, help="seed of the first episode, or of the images")
    evaluate.add_argument("--sampler", help="sampler, as sampling.sampler of train")
    evaluate.add_argument("--sampling-steps", type=int, help="steps of the sampler for a chunk or an image")
    evaluate.add_argument("--spacing", help="leading, trailing or linspace")
    evaluate.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    policies = evaluate.add_argument_group("policies")
    policies.add_argument("--episodes", type=int, help="number of episodes")
    policies.add_argument("--noise-seed", type=int, help="seed of the sampler's noise")
    policies.add_argument("--workers", type=int, help="processes for the environments")
    policies.add_argument("--videos", type=int, help="number of episodes to film")
    policies.add_argument("--camera", metavar="NAME", help="camera that films, where the environment has several")
    policies.add_argument(
        "--fresh", action="store_true", help="score on seeds that no checkpoint was chosen by, and show the difference"
    )
    images = evaluate.add_argument_group("image models")
    images.add_argument("--samples", type=int, help="number of images")
    images.add_argument("--batch-size", type=int, help="images generated at a time")
    images.add_argument("--guidance", type=float, help="classifier-free guidance: 1 for none")
    images.add_argument(
        "--average", help="which average of the weights: ema (default), ema_LENGTH, or all to compare and choose"
    )
    images.add_argument("--inception", help="local weights of the Inception network, for FID")
    images.add_argument("--resnet", help="local weights of a CIFAR ResNet, for FD-ResNet")
    evaluate.set_defaults(run=_evaluate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 after a mistake that was named, 130 after Ctrl-C."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and ("overrides" not in options or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # settings after an option, which argparse leaves over
        options.overrides += rest
    try:
        return int(options.run(options))
    except UserError as error:
        print(f"policy-accel: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("policy-accel: stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 0


def _again(options: argparse.Namespace) -> str:
    """The command line that was started, as the user can start it again."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "policy-accel" else "policy-accel"
    folder = [] if options.config_dir is None else ["--config-dir", str(options.config_dir)]
    return shlex.join([program, options.command, *options.overrides, *folder])


def _demo(options: argparse.Namespace) -> int:
    from policy_accel.commands.train import demo_overrides, run_train

    return run_train(demo_overrides(options.overrides), options.config_dir, again=_again(options))


def _train(options: argparse.Namespace) -> int:
    from policy_accel.commands.train import print_config, run_train

    if options.print_config:
        return print_config(options.overrides, options.config_dir)
    return run_train(options.overrides, options.config_dir, again=_again(options))


def _list(options: argparse.Namespace) -> int:
    from policy_accel.commands.list import run_list

    return run_list(options.kind, options.config_dir, options.plugins)


def _evaluate(options: argparse.Namespace) -> int:
    from policy_accel.commands.evaluate import run_evaluate

    return run_evaluate(options)


def _sample(options: argparse.Namespace) -> int:
    from policy_accel.commands.sample import run_sample

    return run_sample(options)


def _diagnose(options: argparse.Namespace) -> int:
    from policy_accel.commands.diagnose import run_diagnose

    return run_diagnose(
        options.dataset, options.overrides, config_dir=options.config_dir, output=options.output, rows=options.rows
    )


def _inspect(options: argparse.Namespace) -> int:
    from policy_accel.commands.data import run_inspect

    return run_inspect(options.path, options.resolution)


def _fetch(options: argparse.Namespace) -> int:
    from policy_accel.commands.data import run_fetch

    return run_fetch(options.name, options.to)


def _convert(options: argparse.Namespace) -> int:
    from policy_accel.commands.convert import run_convert

    return run_convert(options)


if __name__ == "__main__":
    sys.exit(main())
