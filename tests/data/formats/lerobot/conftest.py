"""LeRobot data sets made by hand after the specification: pyarrow, PyAV, Pillow and json, none of our own code."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

FPS = 10
VERSIONS = pytest.mark.parametrize("version", ["v2.1", "v3.0"])
DERIVED = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


@dataclass
class HandMade:
    """Where it lies and what is in it: key -> [N, ...], lengths [E]."""

    root: Path
    arrays: dict[str, np.ndarray]
    lengths: list[int]
    info: dict[str, Any] = field(default_factory=dict)

    def save_info(self) -> None:
        (self.root / "meta/info.json").write_text(json.dumps(self.info))

    def episode(self, key: str, number: int) -> np.ndarray:
        start = sum(self.lengths[:number])
        return self.arrays[key][start : start + self.lengths[number]]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def encode(path: Path, frames: np.ndarray, fps: int = FPS) -> None:
    """An mp4 without loss, with key frames every 8 frames so that seeking has to decode on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(fps), options={"qp": "0", "g": "8"})
        stream.pix_fmt, stream.height, stream.width = "rgb24", frames.shape[1], frames.shape[2]
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def column(values: np.ndarray, picture: bool) -> pa.Array:
    if picture:
        cells = [{"bytes": png(frame), "path": f"frame_{row:06d}.png"} for row, frame in enumerate(values)]
        return pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    kind = pa.from_numpy_dtype(values.dtype)
    if values.ndim == 2:
        return pa.array(values.tolist(), pa.list_(kind, values.shape[1]))
    for _ in values.shape[1:]:
        kind = pa.list_(kind)
    return pa.array(values.tolist(), kind)


def derived(lengths: list[int], episode: int, task: int) -> dict[str, np.ndarray]:
    steps = np.arange(lengths[episode])
    return {
        "timestamp": (steps / FPS).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full_like(steps, episode),
        "index": steps + sum(lengths[:episode]),
        "task_index": np.full_like(steps, task),
    }


@pytest.fixture
def lerobot(tmp_path, request):
    def make(version="v2.1", lengths=(3, 70, 6), tasks=("push", "pull", "push"), cameras=(), root=None) -> HandMade:
        """A set with a state, actions, rewards and the cameras "wrist" (PNG) and "top" (video) where wanted."""
        rng = np.random.default_rng(0)
        steps, lengths = sum(lengths), list(lengths)
        named = {
            "observation.state": rng.normal(size=(steps, 3)).astype(np.float32),
            "observation.keypoint": rng.normal(size=(steps, 2, 2)),
            "action": rng.normal(size=(steps, 2)).astype(np.float32),
            "next.reward": rng.normal(size=steps).astype(np.float32),
            "next.done": np.isin(np.arange(steps), np.cumsum(lengths) - 1),
            "next.success": rng.random(steps) > 0.5,
        }
        pictures = {"observation.images.wrist": (5, 4, 3), "observation.images.top": (16, 24, 3)}
        for name, shape in pictures.items():
            if name.split(".")[-1] in cameras:
                named[name] = rng.integers(0, 256, (steps, *shape)).astype(np.uint8)
        made = HandMade(root or tmp_path / "set", named, lengths)
        (made.root / "meta").mkdir(parents=True)
        words = list(dict.fromkeys(tasks))
        features = {}
        for name, values in named.items():
            kind = {"wrist": "image", "top": "video"}.get(name.split(".")[-1], str(values.dtype))
            names = ["height", "width", "channels"] if name in pictures else None
            features[name] = {"dtype": kind, "shape": list(values.shape[1:]) or [1], "names": names}
        features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in DERIVED.items()}
        tables = []
        for episode, task in enumerate(tasks):
            rows = {name: made.episode(name, episode) for name in named if features[name]["dtype"] != "video"}
            rows |= derived(lengths, episode, words.index(task))
            tables.append(pa.table({name: column(v, features[name]["dtype"] == "image") for name, v in rows.items()}))
        made.info = {
            "codebase_version": version,
            "robot_type": "panda",
            "fps": FPS,
            "total_episodes": len(lengths),
            "total_frames": steps,
            "total_tasks": len(words),
            "chunks_size": 2 if version == "v2.1" else 1000,
            "splits": {"train": f"0:{len(lengths)}"},
            "features": features,
        }
        (_write_21 if version == "v2.1" else _write_30)(made, tables, tasks, words, "top" in cameras)
        made.save_info()
        return made

    return make


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_21(made: HandMade, tables: list[pa.Table], tasks, words: list[str], video: bool) -> None:
    for episode, table in enumerate(tables):
        name = f"chunk-{episode // 2:03d}"
        path = made.root / f"data/{name}/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        if video:
            path = made.root / f"videos/{name}/observation.images.top/episode_{episode:06d}.mp4"
            encode(path, made.episode("observation.images.top", episode))
    _lines(made.root / "meta/tasks.jsonl", [{"task_index": n, "task": task} for n, task in enumerate(words)])
    rows = zip(tasks, made.lengths, strict=True)
    episodes = [{"episode_index": n, "tasks": [task], "length": length} for n, (task, length) in enumerate(rows)]
    _lines(made.root / "meta/episodes.jsonl", episodes[::-1])  # any order is allowed
    made.info |= {
        "total_videos": len(tables) * video,
        "total_chunks": -(-len(tables) // 2),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }


def _write_30(made: HandMade, tables: list[pa.Table], tasks, words: list[str], video: bool) -> None:
    """Episodes 0 and 1 share a data file and the rest has another; of the videos 0 is alone and the rest together."""
    rows = []
    for episode, length in enumerate(made.lengths):
        start = sum(made.lengths[:episode])
        row = {"episode_index": episode, "tasks": [tasks[episode]], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": int(episode > 1)}
        row |= {"dataset_from_index": start, "dataset_to_index": start + length}
        if video:
            begin = (start - made.lengths[0]) / FPS if episode else 0.0
            place = {"chunk_index": 0, "file_index": int(episode > 0)}
            place |= {"from_timestamp": begin, "to_timestamp": begin + length / FPS}
            row |= {f"videos/observation.images.top/{name}": value for name, value in place.items()}
        rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (made.root / folder).mkdir(parents=True)
    for file, group in enumerate((tables[:2], tables[2:])):
        pq.write_table(
            pa.concat_tables(group), made.root / f"data/chunk-000/file-{file:03d}.parquet", row_group_size=50
        )
    pq.write_table(pa.Table.from_pylist(rows), made.root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": range(len(words)), "task": words}), made.root / "meta/tasks.parquet")
    if video:
        frames = made.arrays["observation.images.top"]
        for file, part in enumerate((frames[: made.lengths[0]], frames[made.lengths[0] :])):
            encode(made.root / f"videos/observation.images.top/chunk-000/file-{file:03d}.mp4", part)
    made.info |= {
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }


def replaced(table, name, values):
    return table.set_column(table.schema.get_field_index(name), name, values)


def first_table(made):
    return sorted(made.root.glob("data/*/*.parquet"))[0]


def change_first(made, change):
    path = first_table(made)
    pq.write_table(change(pq.read_table(path)), path)


def replace_first(made, name, values):
    change_first(made, lambda table: replaced(table, name, values))
