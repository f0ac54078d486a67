"""How the pages are made: `make docs`, or `sphinx-build -W --keep-going -b html docs
docs/_build/html`. Nothing in them needs a network.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import fsp_dynamics  # noqa: E402

project = "fsp_dynamics"
author = copyright = "The fsp_dynamics developers"
version = release = fsp_dynamics.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
extensions += ["commands", "docstrings", "links", "mathml", "notebooks", "othermembers"]  # ours
exclude_patterns = ["_build", "_extensions"]
default_role = "py:obj"
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "fsp_dynamics"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
pygments_dark_style = "github-dark"

add_module_names = False
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Array": "Array", "State": "State"}
maximum_signature_line_length = 90

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath", "substitution"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

nb_execution_mode = "cache"
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_execution_raise_on_error = True
# a widget needs its kernel, and its script would need a network: pages show what a notebook draws
# beside it
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]


def front_picture() -> str:
    """The explorer in light and dark, if there are such screenshots; otherwise the figure that
    `make` draws.
    """
    seen = [name for name in ("light", "dark") if (HERE / f"explorer-{name}.png").is_file()]
    if not seen:
        return (
            "![The error falls, and every matrix of the loop aligns with the product of the others]"
            "(../figures/quickstart.png)\n\n"
            "*Drawn by `make`. Left, the error in percent; right, the angle between each matrix of the loop "
            "and the product of the others.*"
        )
    caption = "The explorer in JupyterLab: controls on the left, views of one image and one network"
    shown = (f"![{caption}](explorer-{name}.png)" + (f"{{.only-{name}}}" if len(seen) == 2 else "") for name in seen)
    return (
        "\n\n".join(shown)
        + "\n\n*The explorer, `make explore`: one image, its trajectory through both phases, and the two equilibria.*"
    )


myst_substitutions = {"picture": front_picture()}
