"""Facts about a set and its episodes inside a zarr replay buffer, where Diffusion Policy's own reader does not mind.

Facts about the set are the attribute `policy_accel` of the root group. Facts about the episodes, one JSON object each,
stand end to end in `meta/episode_facts` [bytes] uint8, with their cumulative ends in `meta/episode_facts_ends` [E]
int64: Diffusion Policy's ReplayBuffer loads whatever is below meta/, and compares lengths below data/ only.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from policy_accel.data.zarr_store import ReplayStore, RowReader, read_array, root_attributes
from policy_accel.errors import UserError

OWN_ATTRIBUTE = "policy_accel"
FACTS, FACTS_ENDS = "meta/episode_facts", "meta/episode_facts_ends"


def set_facts(replay: ReplayStore) -> dict[str, Any]:
    """Facts about the set, {} when there are none."""
    facts = root_attributes(replay).get(OWN_ATTRIBUTE, {})
    return facts if isinstance(facts, dict) else {}


class EpisodeFacts:
    """Facts about the episodes, read one by one.

    Args:
        replay: an open replay buffer.
        episodes: E.

    Raises:
        UserError: their ends are damaged or are those of another number of episodes.
    """

    def __init__(self, replay: ReplayStore, episodes: int) -> None:
        self.replay = replay
        self.ends: np.ndarray | None = None
        if FACTS in replay.arrays and FACTS_ENDS in replay.arrays:
            self.ends = np.concatenate([[0], read_array(replay, FACTS_ENDS)])
            self.rows = RowReader(replay, FACTS)
            if len(self.ends) != episodes + 1 or self.ends[-1] != self.rows.array.shape[0]:
                raise UserError(
                    f"{replay.source}: {FACTS_ENDS} is not that of {episodes} episodes and "
                    f"{self.rows.array.shape[0]} bytes of {FACTS}; remove both arrays, or copy the file again."
                )

    def __getitem__(self, episode: int) -> dict[str, Any]:
        """Facts about one episode, {} when there are none."""
        if self.ends is None:
            return {}
        begin, end = int(self.ends[episode]), int(self.ends[episode + 1])
        try:
            return dict(json.loads(self.rows.rows(begin, end).tobytes()))
        except ValueError as error:
            raise UserError(
                f"{self.replay.source}: {FACTS} is damaged at episode {episode}; remove it or copy the file again."
            ) from error
