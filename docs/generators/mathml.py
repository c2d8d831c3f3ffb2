"""Formulas as MathML, which browsers draw by themselves: the site loads no script from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def add_renderer(app: Sphinx) -> None:
    """Let `html_math_renderer = "mathml"` be known."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))


def written(latex: str, *, block: bool) -> str:
    """A formula in LaTeX as a `<math>` element.

    Raises:
        ValueError: a command that the converter does not know, which it leaves as it is.
    """
    found: str = convert(latex, display="block" if block else "inline")
    if unknown := re.search(r"\\\w+", found):
        raise ValueError(f"{unknown[0]} in the formula {latex} is not known; write it otherwise.")
    return found


def _inline(visitor: Any, node: nodes.math) -> None:
    visitor.body.append(written(node.astext(), block=False))
    raise nodes.SkipNode


def _display(visitor: Any, node: nodes.math_block) -> None:
    visitor.body.append(f'<div class="math">{written(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode
