"""Settings of Sphinx, which builds the documentation (`make docs`). Every warning is an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "jax-revinc"
html_title = project
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False  # it would be fetched, which a browser refuses to a file
html_show_copyright = False
html_show_sphinx = False

extensions = [
    "autoapi.extension",
    "config_fields",
    "docstrings",
    "myst_nb",
    "shapes",
    "short_types",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]

# Pages. The notebook holds its results; nothing is run.
nb_execution_mode = "off"
myst_heading_anchors = 3

# Docstrings, read from the source: neither torch nor jax is imported.
autoapi_dirs = [
    f"../{package}" for package in ("revinc", "jax_revinc", "torch_reference", "parity")
]
# Commands and the parts of pages: nothing to import.
autoapi_ignore = ["*/__main__.py", "*/commands/*", "*/report/atlas/*"]
autoapi_file_patterns = ["*.pyi", "*.py"]
autoapi_generate_api_docs = False
autodoc_member_order = "bysource"
autoapi_options = ["members", "imported-members"]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
maximum_signature_line_length = 88

# Text in `backticks` that is a name becomes a link. A written reference must lead somewhere.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    ("py:class", "Store"),  # `load` makes it
    ("py:class", "Checksums"),  # `Run.load` reads them
    ("py:class", "Inputs|Asked|Positions|ReturnType"),  # of the forward pass as a pure function
    ("py:class", "Direction|LensHandle"),  # of hooks
    ("py:class", "Reading|Block"),  # of the parts of a residual stream
]
