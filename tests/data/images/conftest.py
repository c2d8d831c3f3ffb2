from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures():
    """Distinct random images: pictures(5, channels=3, size=(8, 8)) -> uint8 [5, 3, 8, 8]."""

    def pictures(count, channels=3, size=(8, 8), seed=0):
        return np.random.default_rng(seed).integers(0, 256, (count, channels, *size), dtype=np.uint8)

    return pictures


@pytest.fixture
def png():
    """Encode uint8 [C, H, W] without loss."""

    def png(image, kind="PNG", **options):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        return buffer.getvalue()

    return png


@pytest.fixture
def tree(tmp_path):
    """Write files {name: bytes} below a new folder, or as a ZIP."""

    def tree(files, name="set", archive=False):
        path = tmp_path / (f"{name}.zip" if archive else name)
        if archive:
            with zipfile.ZipFile(path, "w") as target:
                for inside, content in files.items():
                    target.writestr(inside, content)
            return path
        for inside, content in files.items():
            (path / inside).parent.mkdir(parents=True, exist_ok=True)
            (path / inside).write_bytes(content)
        path.mkdir(exist_ok=True)
        return path

    return tree


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"
