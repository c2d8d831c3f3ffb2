"""Demonstrations in HDF5 of any make: a layout says where episodes and arrays lie; those of ALOHA and D4RL are known.

Names in memory, unless the layout gives them: the path with dots for slashes, without a leading `observations` or
`obs`; actions, rewards, terminations and the like are `action`, `reward`, `done`, `truncated`, infos `info.<name>`. One
whose name is taken, as an observation `action`, is called `obs.<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy_accel.data.episodes import end_problems
from policy_accel.data.formats.hdf5 import (
    NOWHERE,
    SAY_WHERE,
    Unusable,
    by_number,
    check_stored,
    datasets,
    member,
)
from policy_accel.data.formats.hdf5_reader import Arrays, Hdf5Reader, Place
from policy_accel.errors import UserError, did_you_mean

_NAMES = {
    **{"actions": "action", "rewards": "reward", "terminations": "done", "truncations": "truncated", "infos": "info"},
    **{"dones": "done", "terminals": "done", "timeouts": "truncated", "next_observations": "next_obs.observation"},
    **{"compress_len": "", "metadata": ""},  # lengths of ALOHA's pictures, which end themselves; D4RL's own remarks
}
_OBSERVATIONS = ("observations", "obs", "observation")
_TAKEN = ("action", "reward", "done", "truncated", "info", "obs")


@dataclass
class Hdf5Layout:
    """Where demonstrations lie in HDF5 files; paths are below an episode's group or, with a leading slash, absolute.

    Attributes:
        keys: our key -> path of its array; {} for all arrays, under names made of their paths.
        episodes: the groups of episodes, as "data/demo_*"; "/" where each file is one.
        files: the names of the files, where the data is a folder.
        ends: path of an array of cumulative ends, where all episodes lie end to end in one group.
        lengths: the same with the episodes' lengths.
        last: the same with paths of arrays that are not 0 at the last step of an episode.
    """

    keys: dict[str, str] = field(default_factory=dict)
    episodes: str = "/"
    files: str = "*.h*5"
    ends: str | None = None
    lengths: str | None = None
    last: list[str] = field(default_factory=list)


def read_layout(path: Path | str) -> Hdf5Layout:
    """A layout from a YAML file.

    Raises:
        UserError: no such file; no YAML; an unknown setting, or one of another type.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from policy_accel.files import open_regular

    try:
        with open_regular(path) as file:
            given = yaml.safe_load(file)
        if not isinstance(given, dict):
            raise UserError(f"{path}: holds no settings; write for example episodes: data/demo_*")
        known = [field.name for field in fields(Hdf5Layout)]
        for name in given:
            if name not in known:
                raise UserError(f"{path}: '{name}' is no setting of a layout; {did_you_mean(str(name), known)}")
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Hdf5Layout), given))  # type: ignore[return-value]
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no layout ({' '.join(str(error).split())[:200]}); see docs/hdf5.md.") from error


def open_with_layout(path: Path | str, layout: Path | str) -> LayoutReader:
    """A reader of HDF5 whose layout is in a YAML file; raises UserError as both do."""
    return LayoutReader(path, read_layout(layout))


def memory_name(path: str) -> str:
    """Path of an array in an episode -> its key in memory: "observations/images/top" -> "images.top"."""
    top, _, rest = path.partition("/")
    rest = rest.replace("/", ".")
    if top in _OBSERVATIONS:
        return f"obs.{rest}" if rest.partition(".")[0] in _TAKEN else rest or "observation"
    name = _NAMES.get(top, top)
    return f"{name}.{rest}" if rest and name else name


class LayoutReader(Hdf5Reader):
    """HDF5 files as an `EpisodeReader`, by a layout.

    Args:
        path: a file, or a folder of files.
        layout: where the data lies.
        root: where the files are, if not at `path`.

    Raises:
        UserError: nothing lies where the layout says; as `Hdf5Reader`.
    """

    format = "hdf5"
    layout = "HDF5"

    def __init__(self, path: Path | str, layout: Hdf5Layout, root: Path | None = None) -> None:
        self._where, self._root, self._met = layout, root or Path(path), set[str]()
        super().__init__(path)
        for key, stored in layout.keys.items():
            if key not in self._met:
                near = did_you_mean(stored, datasets(self._group(self._places[0])))
                self.close()
                raise UserError(f"{path}: has no {stored}, which the layout gives for '{key}'; {near}")

    def _key_of(self, path: str) -> str:
        return path if self._where.keys else memory_name(path)

    def _stored(self, path: str) -> str:
        return self._where.keys.get(path, path)

    def _arrays(self, group: h5py.Group) -> Arrays:
        if not self._where.keys:
            return datasets(group)
        found = {key: item for key, path in self._where.keys.items() if (item := member(group, path)) != NOWHERE}
        self._met |= found.keys()
        return {key: "is a group" if isinstance(item, h5py.Group) else item for key, item in found.items()}

    def _find(self) -> list[Place]:
        root, self.metadata = self._root, {}
        names = [file for file in root.glob(self._where.files) if file.name[0] != "."] if root.is_dir() else [root]
        places: list[Place] = []
        for file in sorted(names, key=lambda file: by_number(file.name)):
            try:
                places += self._in_file(file, several=root.is_dir())
            except UserError:
                if not root.is_dir():
                    raise
                places.append(Place(file.name, file, "/"))  # its fault is found when it is looked at
        if not places:
            what = f"files {self._where.files}" if not names else f"group {self._where.episodes}"
            raise Unusable(f"has no {what}. {SAY_WHERE}")
        return places

    def _in_file(self, file: Path, *, several: bool) -> Iterator[Place]:
        where = self._where
        parts = [part for part in where.episodes.split("/") if part]
        if not parts and not (where.ends or where.lengths or where.last):
            yield Place(file.name, file, "/")
            return
        root = self._file(file)["/"]
        for group in _matching(root, parts):
            name = f"{file.name}/{group}".rstrip("/") if several or not group else group.rpartition("/")[2]
            group = group or "/"
            if not (where.ends or where.lengths or where.last):
                yield Place(name, file, group)
                continue
            ends = self._ends(member(root, group))
            for number, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
                yield Place(f"{name}, episode {number}", file, group, (start, stop, ends[-1]))

    def _ends(self, group: h5py.Group) -> list[int]:
        """The cumulative ends of the episodes that lie end to end in a group."""
        where = self._where
        paths = [path for path in (where.ends, where.lengths) if path] or where.last
        found = []
        for path in paths:
            array = member(group, path)
            if not isinstance(array, h5py.Dataset) or array.ndim != 1 or array.dtype.kind not in "biuf":
                raise Unusable(f"{path} is no list of numbers, by which the layout tells episodes apart. {SAY_WHERE}")
            check_stored(array)
            found.append(np.asarray(array[()]))
        if where.last:
            stop = np.flatnonzero(np.any(found, axis=0)) + 1
            ends = stop if len(stop) and stop[-1] == len(found[0]) else np.append(stop, len(found[0]))
        else:
            ends = found[0] if where.ends else np.cumsum(found[0])
        for problem in end_problems(ends):
            raise Unusable(problem.replace("episode_ends", paths[0]))
        return [int(end) for end in ends]

    def episode_metadata(self, episode: int) -> dict[str, Any]:
        """See `EpisodeReader`."""
        place = self._places[episode]
        if place.rows:
            return {}
        facts = self._attributes(episode)
        return {"name": place.name} | {name: value for name, value in facts.items() if name != "compress"}


def _matching(group: h5py.Group, parts: list[str], prefix: str = "") -> Iterator[str]:
    """Paths below a group that match the parts of a pattern, in the order of their numbers."""
    if not parts:
        yield prefix
        return
    for name in sorted(group, key=by_number):
        if fnmatchcase(name, parts[0]):
            item = member(group, name)
            if isinstance(item, h5py.Group) or len(parts) == 1:
                yield from _matching(item, parts[1:], f"{prefix}/{name}".lstrip("/"))
