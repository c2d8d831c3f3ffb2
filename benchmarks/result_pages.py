"""Write the pages of docs/results from the recorded JSONs: templates in `pages/`, whose numbers are filled in here.

    python benchmarks/result_pages.py            # after a JSON of results/ or a template was changed
    python benchmarks/result_pages.py --check    # status 1, and the names of the pages, where they are not up to date

A template is Markdown with Jinja's expressions. `result("lift_cpu")` is the content of `results/lift_cpu.json`,
`link("lift_cpu")` a link to it, and `records()`, which stands last, lists every file that the page took a number from,
with its command. A number is never typed: what other people publish is in `pages/published.yaml`, with its source.
README.md's comparison with other packages comes from `docs/results/peers.yaml`. `docs/results/records.md` is made by
`ledger.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import peers
import yaml
from image_methods_table import markdown as image_table
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from optimizers_by_task import table as optimizer_table
from pusht_speedrun import table as ladder
from recorded import BENCHMARKS, Recorded

from policy_accel.files import replace_text

TEMPLATES = BENCHMARKS / "pages"
NEVER_BROKEN = ",\N{NO-BREAK SPACE}"
PAGES = BENCHMARKS.parent / "docs" / "results"
README_PART = """{{ peers_table(readme=true) }}

Checked on {{ peers.checked }}; bold is what others do better. [More, with sources](docs/results/peers.md)."""


def fixed(value: float, digits: int = 2) -> str:
    """1234.5 as 1,234.50."""
    return f"{value:,.{digits}f}"


def shown(value: float) -> str:
    """5085.2 as 5,085 and 63.14 as 63.1."""
    return fixed(value, 0 if abs(value) >= 100 else 1)


def interval(ends: Sequence[float], digits: int = 2) -> str:
    """Of two numbers: [0.86, 0.97], which no line breaks."""
    return f"[{NEVER_BROKEN.join(fixed(end, digits) for end in ends)}]"


def signed(value: float, digits: int = 2) -> str:
    """+0.05."""
    return f"{value:+.{digits}f}"


def signed_interval(ends: Sequence[float], digits: int = 2) -> str:
    """Of a difference: [-0.01, +0.05]."""
    return f"[{NEVER_BROKEN.join(signed(end, digits) for end in ends)}]"


def percent(share: float, digits: int = 0) -> str:
    """0.123 as 12 %."""
    return f"{100 * share:,.{digits}f} %"


def span(values: Iterable[float], digits: int = 2) -> str:
    """The least and the largest: 144 to 164, or one number where they look alike."""
    found = sorted(values)
    low, high = fixed(found[0], digits), fixed(found[-1], digits)
    return low if low == high else f"{low} to {high}"


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    found = list(values)
    return sum(found) / len(found)


def half_width(rows: Iterable[dict[str, Any]]) -> float:
    """Half of the width of `score_interval`, in the mean over the rows."""
    return mean((row["score_interval"][1] - row["score_interval"][0]) / 2 for row in rows)


def inner_values(outer: dict[str, dict[str, Any]]) -> list[Any]:
    """Of a dictionary of dictionaries."""
    return [value for inner in outer.values() for value in inner.values()]


def one(rows: Iterable[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The first of the rows that has these values.

    Raises:
        LookupError: none has.
    """
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    raise LookupError(f"no row has {wanted}")


FILTERS = (
    *(fixed, shown, interval, signed, signed_interval, percent, span),
    *(mean, half_width, inner_values, one),
)


def environment(benchmarks: Path = BENCHMARKS) -> Environment:
    """Jinja with all that a template may use, reading from the folders `results` and `records` of `benchmarks`."""
    recorded, compared = Recorded(benchmarks), peers.read_peers()
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update({function.__name__: function for function in FILTERS})
    made.tests["contains"] = lambda text, part: part in text
    made.globals.update(
        result=recorded.result,
        record=recorded.record,
        link=recorded.link,
        records=recorded.listing,
        ladder=ladder,
        optimizer_table=optimizer_table,
        image_table=image_table,
        published=yaml.safe_load((TEMPLATES / "published.yaml").read_text()),
        peers=compared,
        peers_columns=peers.columns(compared),
        peers_sources=lambda name: peers.sources(compared, name),
        peers_table=lambda *, readme: made.from_string(peers.table(compared, readme=readme)).render(),
    )
    return made


def render(name: str, benchmarks: Path = BENCHMARKS) -> str:
    """The text of a page."""
    return environment(benchmarks).get_template(f"{name}.md.j2").render()


def readme(text: str) -> str:
    """README.md with the table of other packages."""
    return peers.with_table(text, environment().from_string(README_PART).render())


def names() -> list[str]:
    """Of the pages that have a template."""
    return sorted(path.name.removesuffix(".md.j2") for path in TEMPLATES.glob("*.md.j2"))


def stale() -> dict[Path, str]:
    """The files that do not say what the JSONs do, with what they should say."""
    wanted = {PAGES / f"{name}.md": render(name) for name in names()}
    wanted[peers.README] = readme(peers.README.read_text())
    return {page: text for page, text in wanted.items() if not page.is_file() or page.read_text() != text}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a page is not up to date")
    options = parser.parse_args(arguments)
    old = stale()
    for page, text in old.items():
        if options.check:
            print(f"{page.name} is not up to date; run python benchmarks/result_pages.py", file=sys.stderr)
        else:
            replace_text(page, text)
            print(f"written to {page}")
    return int(options.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
