"""The arguments of `policy-accel serve`. It imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.commands.numbers import AT_LEAST_0, AT_LEAST_1, POSITIVE, whole
from policy_accel.commands.overview import Readable
from policy_accel.commands.sampling_arguments import add_sampling_arguments
from policy_accel.commands.trust_arguments import add_trust

TOKEN_VARIABLE = "POLICY_ACCEL_TOKEN"


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command; what is left out has the server's or the policy's default."""
    parser.formatter_class = Readable
    parser.description = (
        "Serve trained policies over websockets to robots that have no torch. Clients and messages are described in "
        "docs/how_to/serving.md."
    )
    parser.epilog = (
        "examples:\n"
        "  policy-accel serve runs/pusht\n"
        "  policy-accel serve pusht=runs/pusht_3 lift=runs/lift --host 0.0.0.0 --token-file token.txt"
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]RUN",
        help="run_dir of a training run, and the name that clients ask for (default: the folder's)",
    )
    add_trust(parser)
    parser.add_argument("--host", help="address to listen at (default: 127.0.0.1); 0.0.0.0 for all of the machine")
    parser.add_argument("--port", type=whole(0, 65535), help="port to listen at (default: 8000); 0 takes a free one")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"a line that clients must know (default: the environment variable {TOKEN_VARIABLE}, or none)",
    )
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    add_sampling_arguments(parser, "a chunk")
    parser.add_argument("--untuned", action="store_true", help="sample as config.yaml says, not as tune-sampling chose")
    parser.add_argument("--noise-seed", type=AT_LEAST_0, default=0, help="seed of the sampler's noise (default: 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--max-batch", type=AT_LEAST_1, default=64, help="requests that are predicted at once (default: 64)"
    )
    parser.add_argument("--max-clients", type=AT_LEAST_1, help="connections at a time (default: 256)")
    parser.add_argument(
        "--max-message-mb", type=POSITIVE, metavar="MB", help="largest message (default: as the observations need it)"
    )
    parser.set_defaults(run="serve:run_serve")
