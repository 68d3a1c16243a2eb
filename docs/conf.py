"""Configuration of the documentation: python -m sphinx -W docs docs/_build (pip install 'jaxcls[docs]')."""

import sys
from pathlib import Path

import jaxcls

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "jaxcls"
author = "The jaxcls authors"
release = version = jaxcls.__version__
html_title = "jaxcls"
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes as fields of their class: as objects, its members would repeat them.
napoleon_use_ivar = True


def setup(app: object) -> None:
    import plots

    plots.write(HERE / "_build" / "plots")
