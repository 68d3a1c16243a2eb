"""Configuration of the documentation: python -m sphinx -W docs docs/_build (pip install 'jaxcls[docs]')."""

import re
from typing import Any

import jaxcls

project = "jaxcls"
author = "The jaxcls authors"
release = version = jaxcls.__version__
html_title = "jaxcls"
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# scikit-learn adds them to its estimators, with references to its own documentation.
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes as fields of their class: as objects, its members would repeat them.
napoleon_use_ivar = True


# Formulas as MathML, which browsers show without a script and without a network.
html_math_renderer = "mathml"


def write_inline(translator: Any, node: Any) -> None:
    _write_mathml(translator, node, "inline")


def write_block(translator: Any, node: Any) -> None:
    _write_mathml(translator, node, "block")


def _write_mathml(translator: Any, node: Any, display: str) -> None:
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    translator.body.append(convert(node.astext(), display=display))
    raise SkipNode


def insert_docstrings(app: object, page: str, source: list[str]) -> None:
    """Replaces the lists of names on the API page, `package`: `name`, `name`, by their docstrings."""
    if page == "api":
        source[0] = re.sub(
            r"^`(jaxcls[\w.]*)`: (.+?)(?=\n\n|\Z)", _directive, source[0], flags=re.MULTILINE | re.DOTALL
        )


def _directive(listed: re.Match[str]) -> str:
    names = ", ".join(re.findall(r"`(\w+)`", listed[2]))
    return f"```{{eval-rst}}\n.. automodule:: {listed[1]}\n   :members: {names}\n```"


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    app.connect("source-read", insert_docstrings)
