"""`policy-accel diagnose`."""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policy_accel.data.images import image_form, image_path
from policy_accel.data.readers import open_reader
from policy_accel.diagnosis import ROWS, advise, diagnose, draw_diagnosis, table
from policy_accel.errors import UserError
from policy_accel.files import replace_json


def run_diagnose(options: argparse.Namespace) -> int:
    """Measure, print the table, write diagnosis.json and diagnosis.png."""
    name = Path(options.dataset.rpartition("shipped:")[2]).name.split(".")[0]
    folder = options.output or Path("diagnosis") / name
    try:
        diagnosis = diagnose(
            options.dataset,
            options.overrides,
            config_dir=options.config_dir,
            rows=ROWS if options.rows is None else options.rows,
            report=lambda what: print(f"diagnose: {what}", file=sys.stderr, flush=True),
        )
    except UserError as error:
        if _holds_images(options.dataset):
            raise UserError(
                f"{options.dataset}: holds images, and diagnose reads demonstrations of robots; for images, "
                "`policy-accel data inspect` looks at them, and says how to train on them."
            ) from error
        raise
    advice = advise(diagnosis)
    record = {**asdict(diagnosis), "advice": [asdict(item) for item in advice]}
    for facts, entry in zip(diagnosis.noise, record["noise"], strict=True):
        entry |= {"drop": facts.drop, "leaks": facts.leaks}
    print(table(diagnosis, advice))
    replace_json(folder / "diagnosis.json", _finite(record))
    draw_diagnosis(diagnosis, folder / "diagnosis.png")
    print(f"\nAll numbers: {folder / 'diagnosis.json'}\nPicture: {folder / 'diagnosis.png'}")
    return 0


def _holds_images(dataset: str) -> bool:
    """Whether it is no demonstrations, but images."""
    place = image_path(dataset)
    with suppress(UserError):
        open_reader(place).close()
        return False
    with suppress(UserError):
        return image_form(place) is not None
    return False


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
