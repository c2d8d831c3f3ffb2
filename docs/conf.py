"""The documentation site, which `make docs` builds."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from generators import write_pages  # noqa: E402
from generators.markup import restructured  # noqa: E402
from generators.mathml import add_renderer  # noqa: E402

project = "policy_accel"
author = "The policy_accel authors"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
default_role = "code"

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource"}
maximum_signature_line_length = 120
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["custom.css"]


def setup(app: Sphinx) -> None:
    """Write the generated pages, draw formulas without a script, give each scheme its pictures, and let docstrings be
    the plain text that they are."""
    write_pages(DOCS / "generated")
    add_renderer(app)
    app.connect("source-read", _by_scheme)
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon reads the sections


def _by_scheme(app: Sphinx, page: str, source: list[str]) -> None:
    """Pictures of one colour scheme are marked in the pages as GitHub wants it; the theme has classes for them."""
    source[0] = re.sub(r"#gh-(light|dark)-mode-only\)", r"){.only-\1}", source[0])


def _plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = map(restructured, lines)
