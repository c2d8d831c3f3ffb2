"""Settings that an older version did not have yet, filled up with their defaults, so that its runs compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from policy_accel.errors import UserError
from policy_accel.groups import flatten


def with_later_settings(configs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The configurations of runs, nested, each with the defaults of settings that only some of the others have.

    A setting that goes with a choice, as those of one optimiser, is asked only of the runs that made that choice. One
    that a plugin of the run defines cannot be filled up, since nothing of a run is executed: such a run stays as it is.
    """
    flat = [flatten(config) for config in configs]
    having: dict[tuple[str, Any, str], set[int]] = defaultdict(set)
    places: dict[tuple[str, Any], set[int]] = defaultdict(set)
    for run, settings in enumerate(flat):
        for key in settings:
            section = key.rpartition(".")[0]
            place = f"{settings.get('track')}/{section}", str(settings.get(f"{section}.name"))
            places[place].add(run)
            having[(*place, key)].add(run)
    lacking = {run for (*place, _), runs in having.items() for run in places[(place[0], place[1])] - runs}
    return [_completed(config) if run in lacking else config for run, config in enumerate(configs)]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    from policy_accel.track import track  # imports torch, which comparing does without where it can

    try:
        found = track(str(config.get("track")))
        return found.record(found.typed(config))
    except (UserError, ValueError, TypeError):
        return config
