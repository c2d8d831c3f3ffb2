"""Images that a trained model draws below real ones of the same classes, which it did not see.

    policy-accel demo images run_dir=runs/demo-images
    python docs/figures/image_grid.py runs/demo-images

writes image_grid.webp, a column for each class, and its record image_grid.json. Nothing is chosen: the real images are
the first held-out ones of their class, the drawn ones have the indices from 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import record
import torch
from PIL import Image
from style import FOLDER

from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.run import LoadedImageRun
from policy_accel.images.sets import load_split
from policy_accel.images.track import IMAGES

ROWS = 2
"""Of the real images, and of the drawn ones."""
SCALE, GAP, BETWEEN = 3, 6, 18
SEED = 0


def main() -> None:
    """Draw the images and write the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of `policy-accel demo images`")
    run_dir = parser.parse_args().run_dir
    loaded = IMAGES.load(run_dir, "last", torch.device("cpu"))
    path = FOLDER / "image_grid.webp"
    picture = Image.fromarray(composed(real(loaded), drawn(loaded)))
    picture.save(path, lossless=True, method=6)
    figures = {
        "classes": list(loaded.classes),
        "rows": {"real, held out": ROWS, "drawn": ROWS},
        "sampling_seed": SEED,
        "size": list(picture.size),
    }
    record.write("image_grid", run_dir, figures, path)


def real(loaded: LoadedImageRun) -> np.ndarray:
    """The first held-out images of each class, uint8 [ROWS, classes, H, W, C]."""
    held_out = load_split(loaded.config.task).held_out
    assert held_out is not None
    assert held_out.labels is not None
    labels = np.asarray(held_out.labels)
    rows = [np.flatnonzero(labels == number)[:ROWS] for number in range(len(loaded.classes))]
    images = np.asarray(held_out.images)[np.stack(rows, axis=1)]
    return np.moveaxis(images, 2, -1)


def drawn(loaded: LoadedImageRun) -> np.ndarray:
    """Images of the model, of each class in turn, uint8 [ROWS, classes, H, W, C]."""
    count = len(loaded.classes)
    generator = ImageGenerator(
        loaded.model,
        shape=loaded.shape,
        sampler=loaded.sampler,
        seed=SEED,
        classes=count,
        condition_dim=loaded.condition_dim,
    )
    labels = torch.arange(count).repeat(ROWS)
    with torch.no_grad():
        images = loaded.representation.decode(generator.draw(range(ROWS * count), labels))
    return images.reshape(ROWS, count, *loaded.shape).permute(0, 1, 3, 4, 2).numpy()


def composed(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Both blocks of images [rows, columns, H, W, C], enlarged, on a transparent ground: uint8 [height, width, 4]."""
    rows, columns, height, width = above.shape[:4]
    high, wide = SCALE * height + GAP, SCALE * width + GAP
    block = rows * high - GAP
    canvas = np.zeros((2 * block + BETWEEN, columns * wide - GAP, 4), dtype=np.uint8)
    for top, images in ((0, above), (block + BETWEEN, below)):
        for row, line in enumerate(images):
            for column, image in enumerate(line):
                y, x = top + row * high, column * wide
                pixels = image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
                place = canvas[y : y + SCALE * height, x : x + SCALE * width]
                place[..., :3], place[..., 3] = pixels, 255
    return canvas


if __name__ == "__main__":
    main()
