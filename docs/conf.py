"""Sphinx settings: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import pathlib

import aprm_jax
from aprm_jax.config.reference import configuration_reference

project = "aprm_jax"
author = "the aprm_jax authors"
release = version = aprm_jax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "aprm_jax"
html_static_path = ["_static"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # shapes and dtypes stand in the signatures
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_rtype = False

# What the schema says of each field, so that no page can say something else.
HERE = pathlib.Path(__file__).resolve().parent
(HERE / "configuration.md").write_text(configuration_reference())
