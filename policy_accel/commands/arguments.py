"""The arguments of every command. It imports nothing heavy, so that `policy-accel --help` answers at once."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from policy_accel.commands.benchmark_arguments import add_benchmark_arguments
from policy_accel.commands.compare_arguments import add_compare_arguments
from policy_accel.commands.convert_arguments import add_convert_arguments
from policy_accel.commands.distill_arguments import add_distill_arguments
from policy_accel.commands.export_arguments import add_export_arguments
from policy_accel.commands.latents_arguments import add_decode_arguments, add_encode_arguments
from policy_accel.commands.measures_arguments import add_measures_arguments
from policy_accel.commands.numbers import AT_LEAST_0, AT_LEAST_1, NOT_NEGATIVE, POSITIVE, WORKERS
from policy_accel.commands.overview import SUMMARIES, CommandParser, OverviewParser, Readable
from policy_accel.commands.report_arguments import add_report_arguments
from policy_accel.commands.sample_arguments import add_sample_arguments
from policy_accel.commands.sampling_arguments import add_sampling_arguments
from policy_accel.commands.serve_arguments import add_serve_arguments
from policy_accel.commands.sweep_arguments import add_sweep_arguments
from policy_accel.commands.trust_arguments import add_plugins, add_trust
from policy_accel.commands.tune_arguments import add_tune_arguments
from policy_accel.robot.control.config import JOININGS, MODES, WHEN_LATE
from policy_accel.written_formats import WRITTEN_FORMATS

MAZES = ("umaze", "medium", "large")
EXPERTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pusht": ("pusht_demonstrations", {}),
    "two_modes": ("two_modes", {}),
    "lift": ("robosuite_demonstrations", {"task": "lift"}),
    "can": ("robosuite_demonstrations", {"task": "can"}),
    "square": ("robosuite_demonstrations", {"task": "square"}),
    **{f"pointmaze_{maze}": ("maze_expert", {"maze": maze}) for maze in MAZES},
    "fetch_push": ("fetch_expert", {"task": "push"}),
    "fetch_pick_and_place": ("fetch_expert", {"task": "pick_and_place"}),
}
"""Task -> module of `policy_accel.envs` whose `generate` plays its expert, and what to tell it."""
WITH_CAMERAS = ("lift", "can", "square")


def build_parser() -> argparse.ArgumentParser:
    """Arguments of every command; `run` is its function, as module:name below `policy_accel.commands`."""
    parser = OverviewParser(prog="policy-accel")
    parser.add_argument("--version", action="version", version=f"policy-accel {version('policy-accel')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=CommandParser)

    def command(name: str, **described: Any) -> argparse.ArgumentParser:
        summary = SUMMARIES[name]
        described.setdefault("description", f"{summary[0].upper()}{summary[1:]}.")
        return commands.add_parser(name, help=summary, formatter_class=Readable, **described)

    demo = command("demo")
    demo.add_argument(
        "overrides", nargs="*", metavar="[pusht|images] KEY=VALUE", help="which (default: pusht); settings as for train"
    )
    _add_config_dir(demo)
    demo.set_defaults(run="demo:run_demo")

    doctor = command(
        "doctor",
        description="Check this machine: versions, devices, simulators, rendering, codecs, memory, and what is missing "
        "with the line that installs it. With settings it looks at what `train` with them would need. The exit status "
        "is 2 when something that was asked for does not work, without settings policy_accel itself.",
        epilog="examples:\n"
        "  policy-accel doctor\n"
        "  policy-accel doctor task=lift task.data=PATH\n"
        "  policy-accel doctor --json",
    )
    doctor.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    _add_config_dir(doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON object alone")
    doctor.set_defaults(run="doctor:run_doctor")

    completion = command(
        "completion",
        description="Print a script with which a shell completes commands, settings, choices and run directories.",
        epilog="examples:\n"
        "  bash, in ~/.bashrc:  source <(policy-accel completion bash)\n"
        "  zsh, in ~/.zshrc behind compinit:  source <(policy-accel completion zsh)\n"
        "  fish, in config.fish:  policy-accel completion fish | source",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")
    completion.set_defaults(run="completion:run_completion")

    train = command(
        "train",
        description="Train a policy on demonstrations and score it in rollouts, or train an image model and measure "
        "the images it makes. A run that was stopped continues when the same command is started again.",
        epilog="examples:\n"
        "  policy-accel train task=pusht_state training.steps=4000\n"
        "  policy-accel train recipe=diffusion_policy task.data=PATH\n"
        "  policy-accel train model=transformer --print-config\n"
        "  policy-accel train task=cifar10 recipe=ddpm_cifar10 task.data=PATH\n"
        "  policy-accel train task=mnist method=immiscible_knn\n"
        "  policy-accel train task=./mine.yaml plugins=[my_module]\n"
        "`policy-accel list tasks` names the tasks, list recipes the recipes, and so on.",
    )
    train.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="configuration, for example training.steps=2000"
    )
    _add_config_dir(train)
    train.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    train.set_defaults(run="train:run_train")

    add_distill_arguments(command("distill"))
    add_sweep_arguments(command("sweep"))

    add_compare_arguments(command("compare"))

    add_evaluate_arguments(command("evaluate"))
    add_export_arguments(command("export"))
    sample = command("sample")
    add_sample_arguments(sample)
    add_trust(sample)
    sample.set_defaults(run="sample:run_sample")

    add_serve_arguments(command("serve"))

    tune = command("tune-sampling")
    add_tune_arguments(tune)
    add_trust(tune)

    diagnose = command(
        "diagnose",
        description="Measure on demonstrations, before any training, what each method would change: does a choice of "
        "noise tell the observation, which noise levels are trained on, where the loss is noisy. Prints a table with a "
        "recommendation and writes diagnosis.json and diagnosis.png.",
        epilog="examples:\n"
        "  policy-accel diagnose data/pusht.zip\n"
        "  policy-accel diagnose PATH task=custom 'task.observation=[state]' task.action=action",
    )
    diagnose.add_argument("dataset", metavar="DATASET", help="demonstrations in any known format")
    diagnose.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="as for train")
    _add_config_dir(diagnose)
    diagnose.add_argument("--output", type=Path, metavar="DIR", help="folder (default: diagnosis/NAME of the data)")
    diagnose.add_argument("--rows", type=AT_LEAST_1, help="windows to look at (default: 4096)")
    diagnose.set_defaults(run="diagnose:run_diagnose")

    add_benchmark_arguments(command("benchmark"))

    report = command("report")
    add_report_arguments(report)
    add_trust(report)

    lists = command("list", description="Name the tasks, recipes, methods or models, or the parameters of a network.")
    lists.add_argument(
        "kind",
        metavar="KIND",
        help="tasks, recipes, methods, models, a group as acceleration/noise, or parameters (of a network, and what "
        "moves each)",
    )
    lists.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="for parameters: as for train")
    _add_config_dir(lists)
    add_plugins(lists)
    lists.set_defaults(run="list:run_list")

    data = command("data")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="say what demonstrations or an image set hold, and what is wrong")
    inspect.add_argument("path", help="demonstrations of any known format or an image set; shipped:NAME ships")
    inspect.add_argument("--layout", type=Path, metavar="YAML", help="where HDF5 of another make has its data")
    inspect.add_argument(
        "--resolution", type=AT_LEAST_1, help="of an image set: crop and resize as task.resolution does"
    )
    inspect.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="draw some episodes: where they go, first frames of the cameras"
    )
    inspect.set_defaults(run="data:run_inspect")
    fetch = actions.add_parser("fetch", help="download a public set; continues a download that was cut off")
    fetch.add_argument("name", help="name of the set, for example pusht, cifar10 or mnist")
    fetch.add_argument("--to", type=Path, default=Path("data"), metavar="DIR", help="folder (default: data)")
    fetch.set_defaults(run="data:run_fetch")
    add_convert_arguments(actions.add_parser("convert", help="write demonstrations in another format"))
    add_encode_arguments(actions.add_parser("encode", help="turn images into the latents of an autoencoder"))
    add_decode_arguments(actions.add_parser("decode", help="turn latents into images"))
    generate = actions.add_parser("generate", help="record demonstrations of a scripted expert, or draw shapes")
    add_generate_arguments(generate)
    return parser


def _add_config_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="folder of your own task/, recipe/, method/ and model/*.yaml"
    )


def add_evaluate_arguments(evaluate: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel evaluate`; those of one kind of run are refused for the other."""
    evaluate.add_argument(
        "run_dirs",
        type=Path,
        nargs="+",
        metavar="RUN_DIR",
        help="run_dir of a training run, an exported policy, or the model file or folder of another library; several "
        "runs of policies make a table",
    )
    add_trust(evaluate)
    evaluate.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    evaluate.add_argument("--seed", type=AT_LEAST_0, help="seed of the first episode, or of the images")
    add_sampling_arguments(evaluate, "a chunk or an image")
    evaluate.add_argument(
        "--average", help="which average of the weights: ema (default), ema_LENGTH, or all to compare and choose"
    )
    evaluate.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    evaluate.add_argument(
        "--json", action="store_true", help="print one JSON object alone, and what it says on the standard error"
    )
    policies = evaluate.add_argument_group("policies")
    policies.add_argument("--episodes", type=AT_LEAST_1, help="number of episodes")
    policies.add_argument("--noise-seed", type=AT_LEAST_0, help="seed of the sampler's noise")
    policies.add_argument("--workers", type=WORKERS, help="processes for the environments")
    policies.add_argument("--videos", type=AT_LEAST_0, help="number of episodes to film")
    policies.add_argument("--camera", metavar="NAME", help="camera that films, where the environment has several")
    policies.add_argument(
        "--fresh", action="store_true", help="score on seeds that no checkpoint was chosen by, and show the difference"
    )
    policies.add_argument(
        "--untuned", action="store_true", help="sample as config.yaml says, not as tune-sampling chose"
    )
    policies.add_argument(
        "--delay-ms", type=NOT_NEGATIVE, metavar="MS", help="a chunk takes so long, and the simulator does not wait"
    )
    policies.add_argument(
        "--rate", type=POSITIVE, metavar="HZ", help="with --delay-ms: steps of the environment a second"
    )
    policies.add_argument(
        "--mode",
        choices=MODES,
        help="with --delay-ms: predict while acting (async, default), without pause, or wait",
    )
    policies.add_argument(
        "--joining",
        choices=JOININGS,
        metavar="WAY",
        help=f"with --delay-ms: how a chunk goes on from those before: {', '.join(JOININGS)} (default: receding)",
    )
    policies.add_argument(
        "--when-late",
        choices=tuple(name for name in WHEN_LATE if name != "stop"),
        help="with --delay-ms: what is done while the next chunk is not there (default: hold)",
    )
    policies.add_argument(
        "--data",
        metavar="PATH",
        help="compare with the actions of these demonstrations instead, in any known format, without a simulator; for "
        "images: compare with this image set instead of the run's own",
    )
    policies.add_argument(
        "--layout", type=Path, metavar="YAML", help="with --data: where HDF5 of another make has its data"
    )
    policies.add_argument(
        "--data-episodes",
        type=lambda text: text.split(","),
        metavar="N,A:B,...",
        help="with --data: these episodes (default: those that did not train the run)",
    )
    policies.add_argument("--windows", type=AT_LEAST_1, help="with --data: chunks that are compared (default: 256)")
    add_measures_arguments(evaluate)
    evaluate.set_defaults(run="evaluate:run_evaluate")


def add_generate_arguments(generate: argparse.ArgumentParser) -> None:
    """Arguments of `policy-accel data generate`."""
    made = generate.add_subparsers(dest="task", required=True, metavar="TASK")
    for task in EXPERTS:
        expert = made.add_parser(task, help=f"demonstrations of {task} by a scripted expert")
        expert.add_argument("--episodes", type=AT_LEAST_1, required=True)
        expert.add_argument(
            "--seed", type=AT_LEAST_0, default=0, help="draws starts and the expert's variety (default: 0)"
        )
        expert.add_argument("--output", type=Path, help="where to write (default: TASK_EPISODES_SEED and a suffix)")
        expert.add_argument(
            "--to",
            choices=WRITTEN_FORMATS,
            default="robomimic" if task in WITH_CAMERAS else "zarr",
            help="format (default: %(default)s)",
        )
        expert.add_argument("--workers", type=WORKERS, default=-1, help="processes (default: one for each core)")
        if task in WITH_CAMERAS:
            expert.add_argument("--cameras", default="", help="cameras to record, as agentview,robot0_eye_in_hand")
            expert.add_argument("--image-size", type=AT_LEAST_1, help="pixels of their frames (default: 84)")
        expert.set_defaults(run="generate:run_generate")
    shapes = made.add_parser("shapes", help="procedural images with classes of known density")
    shapes.add_argument(
        "--images", type=AT_LEAST_1, required=True, help="to train on; a quarter as many are drawn to test on"
    )
    shapes.add_argument("--seed", type=AT_LEAST_0, required=True)
    shapes.add_argument("--size", type=AT_LEAST_1, default=24, help="pixels (default: 24)")
    shapes.add_argument("--output", type=Path, help="NPZ to write (default: shapes_IMAGES_SEED.npz)")
    shapes.set_defaults(run="generate:run_generate_shapes")
