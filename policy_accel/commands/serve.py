"""`policy-accel serve`."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from policy_accel.commands.early import check_run
from policy_accel.commands.serve_arguments import TOKEN_VARIABLE
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.files import explained
from policy_accel.plugins import import_plugins

NAME = re.compile(r"[\w.-]+", re.ASCII)


def run_serve(options: argparse.Namespace) -> int:
    """Serve the policies of runs until Ctrl-C or SIGTERM; 0 then."""
    runs, token = named_runs(options.runs), read_token(options.token_file)
    for run_dir in runs.values():
        check_run(run_dir, options.checkpoint)
    try:
        from policy_accel.robot.serving.server import PolicyServer, ServerConfig
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("websockets", "msgpack"):
            raise
        raise UserError(f"serve needs the package {package}; {to_install('serve')}") from error
    from policy_accel.policy.controller import Policy
    from policy_accel.robot.serving.served import ServedPolicy

    asked = {name: getattr(options, name) for name in ("host", "port", "max_clients", "max_message_mb")}
    config = ServerConfig(token=token, **{name: value for name, value in asked.items() if value is not None})
    config.check()
    import_plugins(options.plugins)
    policies = {}
    for name, run_dir in runs.items():
        policy = Policy.load(
            run_dir,
            checkpoint=options.checkpoint,
            device=options.device,
            sampler=options.sampler,
            sampling_steps=options.sampling_steps,
            sampling_times=options.sampling_times,
            spacing=options.spacing,
            untuned=options.untuned,
            noise_seed=options.noise_seed,
            trust=options.trust,
        )
        policies[name] = ServedPolicy(name, policy, options.max_batch)
    server = PolicyServer(policies, config)
    for served in policies.values():
        served.warm_up()

    def ready(host: str, port: int) -> None:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if token is None and not is_loopback(host):
            print(
                f"remark: whoever reaches {address} can use this server; --token-file or {TOKEN_VARIABLE} asks "
                "for a token.",
                file=sys.stderr,
            )
        for name, served in policies.items():
            told = served.metadata()
            print(
                f"Serving {name} (step {told['step']}, {told['sampler']} with {told['network_evaluations']} "
                f"evaluations a chunk) at ws://{address}/{name}",
                flush=True,
            )

    asyncio.run(server.run(ready))
    for name, served in policies.items():
        figures = served.figures
        print(
            f"Stopped. {name}: {figures.answers} answers, {figures.refusals} refusals, {figures.failures} failures.",
            flush=True,
        )
    return 0


def named_runs(words: Sequence[str]) -> dict[str, Path]:
    """[NAME=]RUN ... -> run directory by name.

    Raises:
        UserError: a name that no address can have, or one given twice.
    """
    runs: dict[str, Path] = {}
    for word in words:
        before, equals, behind = word.partition("=")
        named = bool(equals) and NAME.fullmatch(before) is not None and not Path(word).exists()
        path = Path(behind if named else word)
        name = before if named else path.resolve().name
        if NAME.fullmatch(name) is None:
            raise UserError(f"'{name}' cannot be part of an address; name the run: NAME={word}")
        if name in runs:
            raise UserError(f"{runs[name]} and {path} are both called '{name}'; name one of them: NAME={path}")
        runs[name] = path
    return runs


def read_token(path: Path | None) -> str | None:
    """The token that clients must know: of a file, or else of the environment; None where neither has one.

    Raises:
        UserError: the file cannot be read; not one line of visible ASCII.
    """
    source = f"environment variable {TOKEN_VARIABLE}" if path is None else str(path)
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE)
    else:
        with explained(path, "read"):
            token = path.read_text(errors="replace")
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"{source} holds no token; a token is one line of visible ASCII without spaces.")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
