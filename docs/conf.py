"""The documentation site, which `make docs` builds."""

project = "policy_accel"
author = "The policy_accel authors"
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = project
