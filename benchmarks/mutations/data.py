"""Mutations of policy_accel/data."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "data/statistics.py",
        "policy/test_normalization.py",
        ("max(float(np.finfo(dtype).eps), _LAST_BITS)", "0.0"),
        ("np.abs(high)), _NOTHING)", "np.abs(high)), 0.0)"),
    ),
    *of(
        "data/formats/replay_buffer.py",
        "data/formats/test_zarr_codecs.py",
        ('*(metadata["filters"] or ()), metadata["compressor"]', 'metadata["compressor"]'),
    ),
    *of(
        "data/formats/zarr_codecs.py",
        "data/formats/test_zarr_codecs.py",
        ("yield from codec_names([*shards", "yield from iter([*shards"),
    ),
]
