"""Formulas as MathML, which browsers draw by themselves: the site loads no script from elsewhere."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def add_renderer(app: Sphinx) -> None:
    """Let `html_math_renderer = "mathml"` be known."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))


def written(latex: str, *, block: bool) -> str:
    """A formula in LaTeX as a `<math>` element.

    Raises:
        docutils.utils.math.MathError: a command that it does not know.
    """
    return tex2mathml(latex.replace(r"\dots", r"\ldots"), as_block=block)


def _inline(visitor: Any, node: nodes.math) -> None:
    visitor.body.append(written(node.astext(), block=False))
    raise nodes.SkipNode


def _display(visitor: Any, node: nodes.math_block) -> None:
    visitor.body.append(f'<div class="math">{written(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode
