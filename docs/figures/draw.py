"""Draw the plots of the pages again, from records and from the package's own functions; nothing is trained.

    python docs/figures/draw.py                  # all
    python docs/figures/draw.py curriculum       # some

The pictures that need a trained run have scripts that write them or their record: `rollout.py RUN`, `denoising.py RUN`
and `image_grid.py RUN`.
"""

from __future__ import annotations

import argparse
import importlib

from style import save

FIGURES = (
    "score_over_time",
    "speed_ladder",
    "denoising",
    "noise_assignment",
    "curriculum",
    "fdm_kernel",
    "kl_paths",
)


def main() -> None:
    """Draw what the command line names, all without a name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(FIGURES)}")
    names = parser.parse_args().names or FIGURES
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        parser.error(f"there is no figure '{unknown[0]}'; choose from {', '.join(FIGURES)}")
    for name in names:
        for path in save(importlib.import_module(name).draw, name):
            print(path)


if __name__ == "__main__":
    main()
