"""Writes the pages of the reference that follow from the code, into docs/generated, when the site is built."""

from __future__ import annotations

from pathlib import Path

from generators.choices import choices_page
from generators.commands import commands_page
from generators.settings import settings_pages


def write_pages(folder: Path) -> None:
    """Write what the pages in docs/reference include: NAME.myst for each; not .md, since they are no pages."""
    folder.mkdir(exist_ok=True)
    for name, text in {**settings_pages(), "choices": choices_page(), "commands": commands_page()}.items():
        (folder / f"{name}.myst").write_text(text)
