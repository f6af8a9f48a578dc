"""The documentation site: `make docs` builds docs/_build, which opens without a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tools"))

import formulas
import notebooks
import reference

import rbpp

project = "rbpp"
author = "rbpp contributors"
copyright = author  # noqa: A001
version = release = rbpp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # measurements are what programs print
exclude_patterns = ["_build", "tools", "**/.*"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

html_theme = "furo"
html_title = f"rbpp {release}"
html_static_path = ["_static"]
html_css_files = ["rbpp.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#7cb8ff", "color-brand-content": "#7cb8ff"},
}
html_domain_indices = False


def setup(app):
    """What Sphinx does not have: reference pages from parsers and tables, MathML, notebooks."""
    app.connect("builder-inited", lambda app: reference.write(Path(app.srcdir)))
    app.connect("builder-inited", lambda app: notebooks.write(Path(app.srcdir)))
    app.connect("source-read", notebooks.link)
    app.connect("autodoc-process-docstring", reference.as_restructured_text)
    formulas.setup(app)
