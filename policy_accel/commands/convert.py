"""`policy-accel data convert`: demonstrations from any known format to another."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from policy_accel.commands.output import suggest
from policy_accel.data.images import image_path
from policy_accel.data.readers import open_episodes, without_unreadable, write_episodes
from policy_accel.errors import UserError
from policy_accel.files import check_new
from policy_accel.progress import Progress

_LEROBOT_OPTIONS = {"lerobot_version": "", "fps": "fps", "video": "images"}


def run_convert(options: argparse.Namespace) -> int:
    """Convert demonstrations a piece at a time; nothing appears at the output before everything is on the disk.

    Args:
        options: the command's arguments.

    Raises:
        UserError: unreadable or unsound input, unknown key or filter, an output that exists, options of another format;
            absolute actions that cannot be found, as `AbsoluteActionsReader` says.
    """
    chosen = _writer_options(options)
    keys = None if options.keys is None else [key.strip() for key in options.keys.split(",") if key.strip()]
    if keys == []:
        raise UserError(f"--keys={options.keys} names no key; give some, as --keys action,object, or leave it out.")
    check_new(options.output)
    opened = open_episodes(
        image_path(options.input),
        None if options.absolute_actions else keys,
        filter_key=options.filter,
        episodes=None if options.episodes is None else options.episodes.split(","),
        skip_bad_episodes=options.skip_bad_episodes,
        layout=options.layout,
    )
    if options.absolute_actions:
        from policy_accel.envs.robosuite_absolute import KEY, AbsoluteActionsReader

        opened = AbsoluteActionsReader(opened)
        keys = keys if keys is None or KEY in keys else [*keys, KEY]
    with opened:
        reader = without_unreadable(opened, keys) if options.skip_bad_episodes else opened
        for remark in reader.remarks:
            print(f"{reader.source}: {remark}", file=sys.stderr)
        steps, episodes, kind = int(reader.episode_ends[-1]), len(reader.episode_ends), reader.format
        with closing(Progress("convert", steps)) as progress:
            write_episodes(
                options.output, reader, options.to, keys=keys, progress=lambda done, _: progress.to(done), **chosen
            )
    print(f"{episodes} episodes, {steps} steps, from {kind} to {options.to}: {options.output}")
    suggest("look at them", ["data", "inspect", options.output])
    return 0


def _writer_options(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in _LEROBOT_OPTIONS if getattr(options, name) is not None}
    if given and options.to != "lerobot":
        name = next(iter(given))
        raise UserError(
            f"--{name.replace('_', '-')}={given[name]} means nothing for --to {options.to}; "
            "leave it out or give --to lerobot."
        )
    if (version := given.pop("lerobot_version", "v3.0")) != "v3.0":
        raise UserError(f"LeRobot version {version} is not written, v3.0 alone; leave it out (LeRobot 0.4 reads v3.0).")
    return {_LEROBOT_OPTIONS[name]: value for name, value in given.items()}
