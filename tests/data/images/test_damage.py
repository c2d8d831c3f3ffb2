"""Every form of an image set, damaged in 40 ways: it is read, or refused in one sentence, in little memory."""

import gzip
import io
import json
import pickle
import random
import resource
import tarfile
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from policy_accel.data.images import read_images
from policy_accel.errors import UserError

RANDOM = np.random.default_rng(0)
WAYS = 40


def encoded(kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def numpy(save, *arrays, **named):
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def zipped(files, compression):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def packed(files, mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def parquet():
    table = pa.table({"image": [{"bytes": encoded(), "path": "x"} for _ in range(5)], "label": [0, 1, 0, 1, 1]})
    features = {"info": {"features": {"label": {"names": ["x", "y"]}}}}
    return numpy(
        lambda file, t: pq.write_table(t, file, row_group_size=2),
        table.replace_schema_metadata({"huggingface": json.dumps(features)}),
    )


def cifar():
    pixels = RANDOM.integers(0, 256, (2, 3072), dtype=np.uint8)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = {name: pickle.dumps({"data": pixels, "labels": [1, 2]}, 2 + n % 4) for n, name in enumerate(names)}
    return files | {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")}, 2)}


FOLDER = {
    f"{part}/{n % 2}/{n}": encoded(kind)
    for n, (part, kind) in enumerate(
        [("train", kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")] + [("test", "PNG")]
    )
}
PAIR = {"a.png": encoded(), "b.png": encoded()}
IMAGES = RANDOM.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
FORMS = {
    "folder": lambda: FOLDER,
    "dataset.json": lambda: PAIR | {"dataset.json": b'{"labels": [["a.png", 0], ["b.png", 1]]}'},
    "metadata.jsonl": lambda: (
        PAIR | {"metadata.jsonl": b'{"file_name": "a.png", "label": 1}\n{"file_name": "b.png", "label": "c"}\n'}
    ),
    "metadata.csv": lambda: PAIR | {"metadata.csv": b'file_name,label\na.png,x\nb.png,"y,z"\n'},
    "zip": lambda: {"s.zip": zipped(PAIR, zipfile.ZIP_DEFLATED)},
    "zip of lzma": lambda: {"s.zip": zipped(PAIR, zipfile.ZIP_LZMA)},
    "tar": lambda: {"s.tar": packed(PAIR | {"a.cls": b"1", "b.cls": b"0"}, "w")},
    "tar.gz": lambda: {"s.tar.gz": packed(PAIR, "w:gz")},
    "tar.xz": lambda: {"s.tar.xz": packed(PAIR, "w:xz")},
    "shards": lambda: {f"train-{n}.tar": packed({"0.png": encoded(), "0.json": b'{"label": 3}'}, "w") for n in (0, 1)},
    "npz": lambda: {"x.npz": numpy(np.savez_compressed, images=IMAGES, labels=np.arange(5), classes=list("abcde"))},
    "npy": lambda: {"x.npy": numpy(np.save, np.ones((4, 4, 8, 8), np.float16))},
    "latents": lambda: {f"{n}.npy": numpy(np.save, np.ones((4, 8, 8), np.float32)) for n in range(3)},
    "cifar": cifar,
    "mnist": lambda: {
        "train-images-idx3-ubyte.gz": gzip.compress(bytes([0, 0, 8, 3, *b"\0\0\0\5\0\0\0\10\0\0\0\10"]) + bytes(320)),
        "train-labels-idx1-ubyte": bytes([0, 0, 8, 1, *b"\0\0\0\5", 1, 2, 3, 4, 5]),
    },
    "parquet": lambda: {"train.parquet": parquet()},
}


def damaged(content, chance):
    content, place = bytearray(content), chance.randrange(len(content))
    match chance.randrange(6):
        case 0:
            del content[place:]
        case 1:
            content[place] ^= 1 << chance.randrange(8)
        case 2:
            content[place : place + 4] = b"\xff" * 4
        case 3:
            content[place : place + 20] = chance.randbytes(20)
        case 4:
            del content[place : place + chance.randrange(1, 30)]
        case 5:
            content[place % 200 % len(content)] = chance.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("form", FORMS)
def test_damaged_sets_are_read_or_refused(form, tree, cache):
    whole = FORMS[form]()
    sentences = []
    for way in range(WAYS):
        chance = random.Random(f"{form} {way}")
        name = chance.choice(list(whole))
        path = tree(whole | {name: damaged(whole[name], chance)}, str(way))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_images(path / "x.npy" if form == "npy" else path, "train", cache_dir=cache)
        except UserError as error:
            sentences.append(str(error).removeprefix(str(path)))
    assert sentences
    assert all(sentence[0] in ":/ " and "\n" not in sentence for sentence in sentences)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**21
