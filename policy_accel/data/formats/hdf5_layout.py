"""Demonstrations in HDF5 of any make: a layout says where episodes and arrays lie; those of ALOHA and D4RL are known.

A key is usable when all episodes have it with one shape and dtype. What few episodes lack or hold otherwise becomes
their fault once the key is asked for; until then it keeps the key out, with a remark. Actions are always asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy_accel.data.episodes import sound_ends
from policy_accel.data.formats import hdf5
from policy_accel.data.formats.base import EpisodeReader, Feature, as_json, decoding
from policy_accel.data.formats.recognise import FACTS_FILE, MAIN_FILE, minari_file
from policy_accel.data.tree import by_number
from policy_accel.errors import UserError, refusing
from policy_accel.files import open_regular
from policy_accel.parsing import from_json, from_yaml

SAY_WHERE = (
    "Say where the data lies: task.layout=FILE.yaml, or --layout FILE.yaml of `data` and `evaluate` "
    "(docs/how_to/hdf5.md)."
)
NAMES = {
    **{"actions": "action", "rewards": "reward", "terminations": "done", "truncations": "truncated", "infos": "info"},
    **{"dones": "done", "terminals": "done", "timeouts": "truncated", "next_observations": "next_obs.observation"},
    **{"observations": "obs", "obs": "obs", "observation": "obs"},
    **{"compress_len": "", "metadata": ""},  # lengths of ALOHA's pictures, which end themselves; D4RL's own remarks
}
_NO_FACTS = ("compress", "id", "total_steps")  # how ALOHA and Minari keep an episode


@dataclass
class Hdf5Layout:
    """Where demonstrations lie in HDF5 files; paths are below an episode's group or, with a leading slash, absolute."""

    keys: dict[str, str] = field(default_factory=dict)  # our key -> path of its array; {}: all, named by their paths
    episodes: str = "/"  # the groups of episodes, as "data/demo_*"; "/" where each file is one
    files: str = "*.h*5"  # the names of the files, where the data is a folder
    ends: str | None = None  # path of an array of cumulative ends, where all episodes lie end to end in one group
    lengths: str | None = None  # the same with the episodes' lengths
    last: list[str] = field(default_factory=list)  # the same with arrays that are not 0 at the last step of an episode


def open_with_layout(path: Path | str, layout: Path | str) -> Hdf5Reader:
    """A reader of HDF5 whose layout is in a YAML file; UserError where that is none, and as `Hdf5Reader`."""
    from omegaconf import OmegaConf

    known = OmegaConf.structured(Hdf5Layout)
    try:
        with open_regular(layout) as file:
            given: Any = OmegaConf.to_object(OmegaConf.merge(known, from_yaml(file.read())))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split()).partition(" object_type")[0]
        raise UserError(
            f"{layout}: is no layout ({why}); it may set {', '.join(known)} (docs/how_to/hdf5.md)."
        ) from error
    return Hdf5Reader(path, given)


def memory_name(path: str, names: dict[str, str] = NAMES, other: str = "", slash: str = ".") -> str:
    """Path of an array in an episode -> its key, as "observations/images/top" -> "images.top"; "" for no data."""
    top, _, rest = path.partition("/")
    name, rest = names.get(top, other + top), rest.replace("/", slash)
    if name == "obs":
        taken = rest and rest.partition(".")[0] in {*names.values(), other[:-1]}
        return f"obs.{rest}" if taken else rest or "observation"
    joint = "." if top in names else slash
    return f"{name}{joint}{rest}" if rest and name else name


def memory_names(paths: Iterable[str]) -> dict[str, str]:
    """Path -> key by `memory_name`, for all the arrays of an episode."""
    return {path: memory_name(path) for path in paths}


@dataclass
class Place:
    """A group of arrays in a file: an episode, or several end to end."""

    name: str  # for messages
    file: Path
    group: str
    arrays: dict[str, hdf5.Series | str] = field(default_factory=dict)  # by path or, where a layout names them, key


class Hdf5Reader(EpisodeReader):
    """HDF5 files as an `EpisodeReader`: the file or folder `root`, if not `path`, by a layout.

    Pictures that are kept as JPEG or PNG files are decoded. Where an array has one row more than there are steps in all
    episodes, as observations may, the last, after the last action, is left out. Raises UserError for a missing or
    damaged file, where nothing lies where the layout says, and where no episode can be used.
    """

    format, layout = "hdf5", "HDF5"
    _named = staticmethod(memory_names)

    def __init__(self, path: Path | str, layout: Hdf5Layout, root: Path | None = None) -> None:
        super().__init__(path)
        self.features, self.metadata = {}, {}
        self._where, self._root, self._without = layout, root or Path(path), list[str]()
        self._rows: list[tuple[int, int, int]] = []  # of each episode: its place, first row there, row after the last
        self._of_most: dict[str, tuple[Feature, dict[int, str]]] = {}  # what is left out until it is asked for
        self._file = lru_cache(maxsize=1)(hdf5.open_hdf5)  # a folder may have thousands
        self._opened.callback(self._file.cache_clear)
        with decoding(path, "the HDF5 file"):
            self._places = self._find()
            for number, place in enumerate(self._places):
                ends = [1]  # of a place that cannot be read
                with self.noting(self.faults, len(self._rows)), decoding(path, place.name):
                    ends = self._look(place)
                self._rows += [(number, start, stop) for start, stop in pairwise([0, *ends])]
            self.episode_ends = np.cumsum([stop - start for _, start, stop in self._rows]).astype(np.int64)
            self._judge()

    def _find(self) -> list[Place]:
        """Where the episodes are, in order, at least one."""
        where, several, places = self._where, self._root.is_dir(), list[Place]()
        files = [file for file in self._root.glob(where.files) if file.name[0] != "."] if several else [self._root]
        for file in sorted(files, key=lambda file: by_number(file.name)):
            groups = ["/"]  # of a damaged file, whose fault is found when it is looked at
            with suppress(UserError):
                groups = list(hdf5.matching(self._file(file), where.episodes))
            for group in groups:
                name = f"{file.name}/{group}" if several else group.rpartition("/")[2]
                places.append(Place(file.name if group == "/" else name, file, group))
        if not places:
            files_with = f"{where.files} with " if several else ""
            raise UserError(f"{self.source}: has no {files_with}group {where.episodes}. {SAY_WHERE}")
        return places

    def _look(self, place: Place) -> list[int]:
        """Find out what arrays a place has; returns the cumulative ends of its episodes."""
        group, stored = hdf5.member(self._file(place.file), place.group), self._where.keys
        if not isinstance(group, h5py.Group):
            raise UserError(f"{self.source}: {place.name} is no group of arrays that can be opened; remove it.")
        arrays = {key: hdf5.member(group, stored[key]) for key in stored} or hdf5.arrays_below(group, self._without)
        ends = self._ends(group)
        if not ends:
            named = self._named(arrays)
            rows = {named[path]: it.shape[0] for path, it in arrays.items() if getattr(it, "shape", None)}
            steps = next((rows[key] for key in ("action", "reward", *rows) if key in rows), 0)
            recorded = str(as_json(group.attrs.get("num_samples", steps)))[:40]
            if not steps or recorded != str(steps):
                found = f"num_samples {recorded}, found {', '.join(list(group)[:6]) or 'nothing'}"
                raise UserError(f"{self.source}: {place.name} has {steps} steps ({found}); remove or record it again.")
            ends = [steps]
        place.arrays = {path: hdf5.series(item, ends[-1]) for path, item in arrays.items()}
        return ends

    def _ends(self, group: h5py.Group) -> list[int]:
        """The cumulative ends of the episodes that lie end to end in a group; [] where it is one episode."""
        where, found = self._where, list[np.ndarray]()
        paths = where.last or [path for path in (where.ends or where.lengths,) if path]
        for path in paths:
            if isinstance(what := hdf5.series(array := hdf5.member(group, path), 0), str) or what.feature.shape:
                raise UserError(f"{self.source}: {path} is no list of numbers that tells episodes apart. {SAY_WHERE}")
            found.append(array[()])
        if not paths:
            return []
        ends = found[0] if where.ends else np.cumsum(found[0])
        if where.last:
            ends = np.union1d(np.flatnonzero(np.any(found, axis=0)) + 1, len(found[0]))
        with refusing(self.source):
            return [int(end) for end in sound_ends(ends, paths[0])]

    def _judge(self) -> None:
        """Take in arrays, or say why they are left out or which places have faults."""
        paths = dict.fromkeys(path for place in self._places for path in place.arrays)
        named = {path: path for path in paths} if self._where.keys else self._named(paths)
        keys = {path: key for path, key in named.items() if key}
        usual = {path: self._compared(path)[0] for path in keys}
        for number in self._sound():  # where most arrays have other rows than usual, the count of steps is wrong
            place = self._places[number]
            rows = {path: what.more for path, what in place.arrays.items() if isinstance(what, hdf5.Series)}
            odd = [path for path in rows if (kind := usual.get(path)) and kind.more != rows[path]]
            if 2 * len(odd) > max(1, len(rows) - 1):
                self._blame({number: f"{odd[0]} of {place.name} {place.arrays[odd[0]]}, as most of its arrays"})
        actions = [path for path, key in keys.items() if key.partition(".")[0] == "action"]
        for path in dict.fromkeys([*actions, *keys]):
            key, (kind, problems) = keys[path], self._compared(path)
            same = [other for other in keys if keys[other] == key]
            self._paths[key] = self._where.keys.get(path, path)
            if len(same) > 1:
                self.left_out[key] = f"{' and '.join(same)} would both be called '{key}'; rename one."
            elif kind and (path in actions or not problems):
                self.features[key] = kind.feature
                self._blame(problems)
            else:
                why = next(iter(problems.values()), f"{self._paths[key]} {hdf5.NOWHERE}")
                self.left_out[key] = f"{why}; correct the {'layout' if self._where.keys else 'file'} or use other keys."
                if kind and 2 * len(problems) < len(self._sound()):
                    self._of_most[key] = kind.feature, problems
        if not self._sound():
            raise UserError(f"{self.source}: {self.faults[0]}")
        if any(kind and kind.more for path, kind in usual.items() if keys[path] in self.features):
            self.layout += ", the observation after the last step left out"

    def _compared(self, path: str) -> tuple[hdf5.Series | None, dict[int, str]]:
        """What an array is in most places, None if nothing usable; where it differs, a sentence without the end."""
        here = {number: self._places[number].arrays.get(path, hdf5.NOWHERE) for number in self._sound()}
        kinds = Counter(what for what in here.values() if isinstance(what, hdf5.Series) and what.more in (0, 1))
        usual = max(kinds, key=lambda kind: (kinds[kind], -kind.more), default=None)
        names, stored = [place.name for place in self._places], self._where.keys.get(path, path)
        like = f", that of {next(names[i] for i in here if here[i] == usual)} {usual}" if usual else ""
        odd = {number: what for number, what in here.items() if what != (usual or hdf5.NOWHERE)}
        return usual, {number: f"{stored} of {names[number]} {what}{like}" for number, what in odd.items()}

    def _sound(self) -> list[int]:
        return list(dict.fromkeys(row[0] for episode, row in enumerate(self._rows) if episode not in self.faults))

    def _blame(self, problems: dict[int, str]) -> None:
        for episode, (number, *_) in enumerate(self._rows):
            if number in problems:
                self.faults.setdefault(episode, f"{problems[number]}; record this episode again or remove it.")

    def ask_for(self, keys: Sequence[str]) -> None:
        """Also of those of which few episodes lack one: that is their fault then."""
        for key in [key for key in keys if key in self._of_most]:
            self.features[key], problems = self._of_most.pop(key)
            del self.left_out[key]
            self._blame(problems)
        super().ask_for(keys)

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """Its group's name and attributes; {} where episodes lie end to end."""
        if episode in self.faults or len(self._rows) > len(self._places):
            return {}
        place = self._places[self._rows[episode][0]]
        facts = hdf5.attributes(self._file(place.file)[place.group])
        return {"name": place.name} | {name: value for name, value in facts.items() if name not in _NO_FACTS}

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        number, first, _ = self._rows[episode]
        place, values = self._places[number], {}
        for key in keys:
            with decoding(self.source, f"{self._paths[key]} of {place.name}"):
                array = hdf5.member(self._file(place.file)[place.group], self._paths[key])
                values[key] = hdf5.decoded(array[first + start : first + stop], self.features[key])
        return values


def open_minari(path: Path | str) -> Hdf5Reader:
    """A reader of a Minari data set, given by its folder, its data folder or main_data.hdf5."""
    main = minari_file(Path(path)) or Path(path)
    facts = main.with_name(FACTS_FILE)
    with open_regular(facts) as file, decoding(facts, "the file"):
        about = {**from_json(file.read())}
    reader = Hdf5Reader(path, Hdf5Layout(episodes="episode_*"), main)
    reader.format, reader.metadata, count = "minari", {"minari": about}, len(reader.episode_ends)
    reader.layout = reader.layout.replace("HDF5", f"Minari HDF5, {about.get('minari_version', 'version not given')}", 1)
    if about.get("total_episodes", count) != count:
        reader.remarks.append(f"{FACTS_FILE} counts {about['total_episodes']} episodes and {MAIN_FILE} holds {count}.")
    return reader
