"""What data are called where the name of a task does not tell them."""

from __future__ import annotations

from pathlib import Path

OF_ANY_DATA = ("custom", "custom_images")
"""Tasks of any data."""


def data_name(data: str) -> str:
    """What data are called in names of folders and in tables: "demos" of "there/demos.zarr.zip" and "shipped:demos"."""
    return Path(data.removeprefix("shipped:")).name.partition(".")[0]
