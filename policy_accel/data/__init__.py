"""Demonstrations and image sets: reading, writing, checking, splitting. Nothing here needs torch."""

from policy_accel.data.download import Fetched, fetch, shipped_path
from policy_accel.data.episodes import Episodes
from policy_accel.data.formats.base import EpisodeReader, Feature, MemoryReader
from policy_accel.data.inspect import Inspection, inspect
from policy_accel.data.readers import open_episodes, read_episodes, write_episodes
from policy_accel.data.split import EpisodeSplit, split_episodes

__all__ = ["EpisodeReader", "EpisodeSplit", "Episodes", "Feature", "Fetched", "Inspection", "MemoryReader"]
__all__ += ["fetch", "inspect", "open_episodes", "read_episodes", "shipped_path", "split_episodes", "write_episodes"]
