"""Formulas of the site as MathML."""

from __future__ import annotations

import importlib
from xml.etree import ElementTree

import pytest
from support.pages import REPOSITORY


def test_a_formula_is_an_element_that_browsers_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    written = importlib.import_module("generators.mathml").written
    root = ElementTree.fromstring(written(r"\sum_{k=1}^{K} \frac{x_1 \dots x_k}{2}", block=True))
    assert (root.tag.rpartition("}")[2], root.get("display")) == ("math", "block")
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert "mfrac" in names
    assert "munderover" in names
    assert "…" in "".join(root.itertext())
    assert "<msub><mover>" in written(r"\bar\alpha_t", block=False), "t belongs to alpha with its bar"
    with pytest.raises(ValueError, match="unknowncommand"):
        written(r"\unknowncommand", block=False)
