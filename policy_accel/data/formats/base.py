"""What every format of demonstrations on the disk offers: a reader that hands out a piece of an episode at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.data.episodes import Episodes, check_finite, compare_rows
from policy_accel.errors import UserError, did_you_mean, refusing
from policy_accel.files import explain_os_error

OnProgress = Callable[[int, int], None]
"""Called with (steps so far, all steps)."""

FIELDS_OF_YOURS = (
    "Name fields of your own by task=custom, task.observation and task.action, as `policy-accel data inspect` prints "
    "them."
)


@dataclass(frozen=True)
class Feature:
    """One key of the data: the shape of a step's value, () for a number, and its NumPy dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of a step's value."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_image(self) -> bool:
        """Whether a step's value is an 8-bit picture [H, W, 1 | 3 | 4]."""
        return self.dtype == np.uint8 and len(self.shape) == 3 and self.shape[2] in (1, 3, 4)


class EpisodeReader(AbstractContextManager["EpisodeReader"]):
    """Demonstrations on the disk, opened, and read a piece at a time; a context manager that closes the files.

    Keys have the names of the one in-memory form (`Episodes`), whatever the format calls them: `action`,
    `action_abs`, `reward` [N], `done` [N], `sim_state` [N, D] (the simulator's state), `next_obs.<key>`, and the
    observations under their own names, without a prefix. Sentences come without the source.
    """

    source: str  # the path, for messages
    format: str  # of `FORMATS`, or "memory"
    layout: str  # for people: "zarr v2, zip"
    features: dict[str, Feature]
    episode_ends: np.ndarray  # [E] int64, cumulative exclusive ends
    metadata: dict[str, Any]  # JSON-able facts about the whole set, as env_args, fps, tasks
    faults: dict[int, str]  # episode, counted in episode_ends -> what keeps it, and not the others, from being read
    remarks: list[str]  # what was left out or assumed when the set was opened
    left_out: dict[str, str]  # key -> why the data has it and it is none of the features
    damaged: dict[str, str]  # key -> why it is none of them, though it would be if the file were whole
    _arrays: dict[str, Any]
    _facts: Sequence[dict[str, Any]]  # about each episode, or none at all
    _paths: dict[str, str]  # key -> what the file calls it, where that is another name

    def __init__(self, source: Path | str) -> None:
        self.source, self.faults, self.remarks, self.left_out, self.damaged = str(source), {}, [], {}, {}
        self._facts, self._paths, self._opened = (), {}, ExitStack()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def ask_for(self, keys: Sequence[str]) -> None:
        """Say which keys will be read; all must be there. What is wrong with one in some episodes is their fault."""
        check_keys(self, keys)

    def own_name(self, key: str) -> str:
        """What the file calls a key."""
        return self._paths.get(key, key)

    def first_row(self, episode: int) -> int:
        """The row of the whole set at which an episode begins."""
        return int(self.episode_ends[episode - 1]) if episode else 0

    def origin(self, episode: int) -> tuple[EpisodeReader, int]:
        """The reader of the file behind this one, and the number of an episode there."""
        return self, episode

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """JSON-able facts about one episode, as its name, filters, model_file, task; {} when there are none."""
        return self._facts[episode] if self._facts else {}

    @contextmanager
    def noting(self, problems: dict[Any, str], at: Any) -> Iterator[None]:
        """Keep the sentence of a UserError of the block, without the source, instead of raising it."""
        try:
            yield
        except UserError as error:
            problems.setdefault(at, str(error).removeprefix(f"{self.source}: ").removeprefix(f"{self.source}/"))

    def read(
        self, episode: int, keys: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, np.ndarray]:
        """Steps [start, stop) of an episode, counted from its first: key -> [stop - start, *shape]. UserError for an
        unknown key, an episode with a fault, a damaged or truncated file."""
        chosen = list(self.features) if keys is None else list(keys)
        self.ask_for(chosen)
        if episode in self.faults:
            raise UserError(f"{self.source}: {self.faults[episode]}")
        length = int(self.episode_ends[episode]) - self.first_row(episode)
        end = length if stop is None else min(stop, length)
        return self._read(episode, chosen, min(start, end), end)

    def _settle(self, arrays: dict[str, tuple[str, Any]]) -> None:
        """Take in arrays [N, ...] of all episodes end to end: key -> its name in the file, what has shape and dtype."""
        with refusing(self.source):
            rows = {name: array.shape[0] for name, array in arrays.values()}
            unequal, self.faults = compare_rows(rows, self.episode_ends)
        self.left_out |= {key: unequal[name] for key, (name, _) in arrays.items() if name in unequal}
        self._arrays = {key: array for key, (name, array) in arrays.items() if name not in unequal}
        self.features = {key: Feature(of.shape[1:], of.dtype.newbyteorder("=")) for key, of in self._arrays.items()}

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """`read` for keys and steps that there are; unless a format has its own way, from arrays that slices read."""
        rows = slice(self.first_row(episode) + start, self.first_row(episode) + stop)
        return {key: np.ascontiguousarray(self._arrays[key][rows]) for key in keys}


class MemoryReader(EpisodeReader):
    """Episodes in memory behind the interface of a file."""

    format, layout = "memory", "in memory"

    def __init__(self, episodes: Episodes) -> None:
        super().__init__(episodes.source)
        self.episodes, self.episode_ends, self.metadata = episodes, episodes.episode_ends, episodes.metadata
        self._facts = episodes.episode_metadata
        self._settle({key: (key, values) for key, values in episodes.arrays.items()})


class EpisodeView(EpisodeReader):
    """Some `keys`, or some `episodes` in the order wanted, of an open reader, which the view closes; None for all.
    UserError for an unknown key."""

    def __init__(
        self, reader: EpisodeReader, keys: Sequence[str] | None = None, episodes: Sequence[int] | None = None
    ) -> None:
        check_keys(reader, keys or ())
        super().__init__(reader.source)
        self._opened.callback(reader.close)
        self.reader, self.format, self.layout, self.metadata = reader, reader.format, reader.layout, reader.metadata
        self.remarks, self.left_out, self.damaged = reader.remarks, reader.left_out, reader.damaged
        self.features = {key: reader.features[key] for key in (reader.features if keys is None else keys)}
        self.episodes = list(range(len(reader.episode_ends)) if episodes is None else episodes)
        self.faults = {i: reader.faults[kept] for i, kept in enumerate(self.episodes) if kept in reader.faults}
        self.episode_ends = np.cumsum(np.diff(reader.episode_ends, prepend=0)[self.episodes]).astype(np.int64)

    def own_name(self, key: str) -> str:
        """The reader's."""
        return self.reader.own_name(key)

    def origin(self, episode: int) -> tuple[EpisodeReader, int]:
        """The reader's."""
        return self.reader.origin(self.episodes[episode])

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """The reader's."""
        return self.reader.episode_metadata(self.episodes[episode])

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        return self.reader.read(self.episodes[episode], keys, start, stop)


def pieces(
    reader: EpisodeReader,
    keys: Sequence[str],
    episodes: Iterable[int] | None = None,
    *,
    piece_bytes: int = 8_000_000,
    finite: bool = True,
    progress: OnProgress | None = None,
) -> Iterator[tuple[int, int, int, dict[str, np.ndarray]]]:
    """Every step of some episodes (None: all) in order, in pieces of at most about `piece_bytes` over all keys (but one
    step) that do not span two episodes: the episode, its step at which the piece starts, rows, key -> [rows, *shape].
    UserError as the reader, for values of another shape or dtype than announced, and with `finite` for NaN and Inf."""
    most = max(1, piece_bytes // max(1, sum(reader.features[key].size for key in keys)))
    for episode in range(len(reader.episode_ends)) if episodes is None else episodes:
        (file, number), begin = reader.origin(episode), reader.first_row(episode)
        length = int(reader.episode_ends[episode]) - begin
        for start in range(0, length, most):
            rows = min(most, length - start)
            read = reader.read(episode, keys, start, start + rows)
            with refusing(reader.source):
                for key in keys:
                    values, feature = read[key], reader.features[key]
                    if values.shape != (rows, *feature.shape) or values.dtype != feature.dtype:
                        raise ValueError(
                            f"data/{key} of episode {number} is {list(values.shape)} {values.dtype} from its step "
                            f"{start} on instead of {[rows, *feature.shape]} {feature.dtype}; record it again."
                        )
                    if finite:
                        check_finite(key, values, file.episode_ends, file.first_row(number) + start)
            yield episode, start, rows, read
            if progress is not None:
                progress(begin + start + rows, int(reader.episode_ends[-1]))


def check_keys(reader: EpisodeReader, keys: Iterable[str]) -> None:
    """Raise UserError for the first key that the reader does not have: why it was left out, or the nearest."""
    for key in keys:
        if key in reader.damaged:
            raise UserError(f"{reader.source}: {reader.damaged[key]}")
        if key in reader.left_out:
            raise UserError(f"{reader.source}: '{key}' cannot be used: {reader.left_out[key]}")
        if key not in reader.features:
            hint = did_you_mean(key, reader.features)
            own = "" if hint.endswith("?") else f" {FIELDS_OF_YOURS}"
            raise UserError(f"{reader.source}: has no key '{key}'; {hint}{own}")


def filters_of(facts: dict[str, Any]) -> list[str]:
    """The filters among the facts about an episode, which others may have made anything."""
    found = facts.get("filters")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


@contextmanager
def decoding(source: Path | str, name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on the bytes of a file into one sentence that names what is damaged in it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # decoders of damaged bytes raise whatever they like
        if isinstance(error, OSError) and error.errno is not None:
            raise explain_os_error(error, source, "read") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"{source}: {name} is damaged ({reason}); copy or download the file again.") from error


def as_json(value: Any) -> Any:
    """A fact as JSON knows it: text, number, truth value, null or list; the text of what is none of these."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    return json.loads(json.dumps(value, default=plain, ensure_ascii=False).encode("utf-8", "replace"))
