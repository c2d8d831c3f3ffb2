"""The documentation site: `sphinx-build -W docs docs/_build`, as `make docs` does."""

project = "policy_accel"
author = "The policy_accel authors"
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
html_theme = "furo"
html_title = project
