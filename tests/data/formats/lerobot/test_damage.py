"""Sets damaged in 40 seeded ways: a right value, a remark or one sentence; never a traceback, never another value."""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_accel.data.inspect import inspect
from policy_accel.data.readers import read_episodes
from policy_accel.errors import UserError

ODD = [None, -1, 0, 10**9, 10**30, 1.5, float("nan"), "x", [], {}, True, [1, 1, 1], {"a": 1}, "{0}", "../x", [[[]] * 9]]
COLUMNS = {
    "empty": lambda column: pa.nulls(len(column), column.type),
    "text": lambda column: pa.array(["x"] * len(column)),
    "huge": lambda column: pa.array([2**62] * len(column)),
    "halves": lambda column: pa.array([0.5] * len(column)),
}


def change_json(path, rng):
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    holder = rng.choice(documents)
    while True:
        key = rng.choice(list(holder))
        if not (isinstance(holder[key], dict) and holder[key] and rng.random() < 0.8):
            break
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(ODD)
    path.write_text("\n".join(json.dumps(document) for document in documents))


def change_table(path, rng):
    table = pq.read_table(path)
    place = rng.randrange(table.num_columns)
    name, how = table.schema.names[place], rng.choice([*COLUMNS, "dropped", "twice"])
    if how == "dropped":
        table = table.remove_column(place)
    elif how == "twice":
        table = pa.concat_tables([table, table])
    else:
        table = table.set_column(place, name, COLUMNS[how](table[name]))
    pq.write_table(table, path)


def flip(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 10, 100])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def make_pipe(path, rng):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "json": (change_json, (".json", ".jsonl")),
    "table": (change_table, (".parquet",)),
    "flipped": (flip, (".json", ".jsonl", ".parquet", ".mp4")),
    "cut": (lambda path, rng: os.truncate(path, rng.randrange(path.stat().st_size)), (".json", ".parquet", ".mp4")),
    "pipe": (make_pipe, (".json", ".jsonl", ".parquet", ".mp4")),
}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_damaged_sets(lerobot, tmp_path, version):
    made = lerobot(version, cameras=("wrist", "top"))
    whole, said = read_episodes(made.root), []
    for seed in range(20):
        rng, root = random.Random(seed), tmp_path / str(seed)
        shutil.copytree(made.root, root)
        damage, suffixes = DAMAGES[rng.choice(["json", *DAMAGES])]
        files = sorted(path for path in root.rglob("*.*") if path.suffix in suffixes)
        path = rng.choice(files)
        damage(path, rng)
        try:
            with warnings.catch_warnings(record=True) as remarks:
                warnings.simplefilter("always")
                found = read_episodes(root)
            inspect(root)
        except UserError as error:
            said.append(str(error).startswith(str(root)))
            continue
        if remarks or damage in (flip, change_table):  # which changes values that nothing else tells of
            continue
        for key, values in found.arrays.items():
            np.testing.assert_array_equal(values, whole.arrays[key])
    assert len(said) > 5
    assert all(said)
