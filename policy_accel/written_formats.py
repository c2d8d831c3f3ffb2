"""The formats that demonstrations are written in; free of imports, since the command line lists them on every start."""

from __future__ import annotations

SUFFIXES = {"zarr": ".zarr.zip", "robomimic": ".hdf5", "lerobot": "", "npz": ".npz"}
"""Format -> how the name of a new file ends; LeRobot's is a folder."""
WRITTEN_FORMATS = tuple(SUFFIXES)
