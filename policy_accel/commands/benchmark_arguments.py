"""The arguments of `policy-accel benchmark`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.benchmark.calls import LEAST_CALLS, LEAST_LATENCY_CALLS
from policy_accel.commands.numbers import AT_LEAST_0, AT_LEAST_1, POSITIVE, WORKERS, whole
from policy_accel.commands.overview import Readable
from policy_accel.commands.trust_arguments import add_trust

ROUNDS, SECONDS, CALLS, EPISODES, SEQUENTIAL, LATENCY_CALLS = 3, 30.0, 50, 50, 5, 300


def add_benchmark_arguments(benchmark: argparse.ArgumentParser) -> None:
    """Arguments of its measurements."""
    kinds = benchmark.add_subparsers(dest="kind", required=True, metavar="WHAT")
    step = kinds.add_parser(
        "step",
        help="an update of `train`: counted, measured, beside its floor and an eager loop",
        epilog="examples:\n"
        "  policy-accel benchmark step recipe=small\n"
        "  policy-accel benchmark step recipe=diffusion_policy training.precision=bf16 --json step.json\n"
        "  policy-accel benchmark step recipe=edm_cifar10 task=shapes task.resolution=32 --rounds 0",
        formatter_class=Readable,
    )
    step.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    step.add_argument("--config-dir", type=Path, metavar="DIR", help="as for train")
    step.add_argument("--updates", type=AT_LEAST_1, metavar="N", help="timed in a round (default: as --seconds allows)")
    step.add_argument("--rounds", type=AT_LEAST_0, default=ROUNDS, help=f"0 only counts (default: {ROUNDS})")
    step.add_argument(
        "--seconds", type=POSITIVE, default=SECONDS, help=f"for all rounds, about (default: {SECONDS:.0f})"
    )
    _add_json(step, "step")

    sample = kinds.add_parser(
        "sample",
        help="one call of a sampler, for 1 and 50 samples",
        epilog="examples:\n"
        "  policy-accel benchmark sample runs/demo\n"
        "  policy-accel benchmark sample recipe=diffusion_policy sampling.sampler=ddim sampling.steps=2",
        formatter_class=Readable,
    )
    sample.add_argument("overrides", nargs="+", metavar="RUN|KEY=VALUE", help="a run_dir, or settings as for train")
    sample.add_argument("--config-dir", type=Path, metavar="DIR", help="as for train")
    sample.add_argument(
        "--calls", type=whole(LEAST_CALLS), default=CALLS, help=f"of each size, at most (default: {CALLS})"
    )
    sample.add_argument("--seconds", type=POSITIVE, default=SECONDS, help=f"for each, about (default: {SECONDS:.0f})")
    sample.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add_trust(sample)
    _add_json(sample, "sample")

    latency = kinds.add_parser(
        "latency",
        help="one prediction of a policy on a robot: p50, p95, p99 and the highest control rate",
        epilog="examples:\n"
        "  OMP_NUM_THREADS=1 policy-accel benchmark latency RUN --sampling-steps 4\n"
        "  policy-accel benchmark latency policy.onnx --json",
        formatter_class=Readable,
    )
    latency.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN",
        help="run_dir of a policy, a folder of a checkpoint, or an exported file",
    )
    latency.add_argument(
        "--calls", type=whole(LEAST_LATENCY_CALLS), default=LATENCY_CALLS, help=f"at most (default: {LATENCY_CALLS})"
    )
    latency.add_argument("--seconds", type=POSITIVE, default=SECONDS, help=f"for all, about (default: {SECONDS:.0f})")
    latency.add_argument("--sampler", help="sampler, as sampling.sampler of train")
    latency.add_argument("--sampling-steps", type=AT_LEAST_1, metavar="K", help="steps of the sampler for a chunk")
    latency.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    latency.add_argument("--precision", default="fp32", help="fp32 (default), bf16, fp16 or auto")
    latency.add_argument("--no-warm-up", action="store_true", help="as a policy is that was only loaded")
    add_trust(latency)
    latency.add_argument(
        "--json",
        nargs="?",
        const=True,
        type=Path,
        metavar="FILE",
        help="print one JSON object, or write it there beside the table",
    )
    latency.set_defaults(run="benchmark:run_latency")

    rollouts = kinds.add_parser("rollouts", help="episodes many at once, beside a loop over Policy.act")
    rollouts.add_argument("run_dir", type=Path, metavar="RUN", help="run_dir of a trained policy")
    rollouts.add_argument("--episodes", type=AT_LEAST_1, default=EPISODES, help=f"many at once (default: {EPISODES})")
    rollouts.add_argument(
        "--sequential",
        type=AT_LEAST_1,
        default=SEQUENTIAL,
        help=f"of them one after the other too (default: {SEQUENTIAL})",
    )
    rollouts.add_argument("--workers", type=WORKERS, default=0, help="processes of the environments (default: 0)")
    rollouts.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add_trust(rollouts)
    _add_json(rollouts, "rollouts")
    _add_time_to_score(kinds)


def _add_time_to_score(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = kinds.add_parser(
        "time-to-score",
        help="what reaching a score costs: methods trained, tuned and scored alike, as a YAML file says",
        description="Train tasks x methods x seeds, score checkpoints with as many episodes as it takes to be sure of "
        "each target, and say what reaching it cost. The same command goes on with what is there.",
        epilog="docs/how_to/time_to_score.md has an example of the file.",
    )
    score.add_argument("plan", type=Path, metavar="FILE.yaml", help="what is to be measured")
    score.add_argument("--config-dir", type=Path, metavar="DIR", help="as for train")
    score.add_argument("--dry-run", action="store_true", help="check and name the runs, and stop")
    score.set_defaults(run="time_to_score:run_time_to_score")


def _add_json(parser: argparse.ArgumentParser, function: str) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.set_defaults(run=f"benchmark:run_{function}")
