"""Settings of the site; `make docs` builds it. Pages that are made from the code: `pages.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pages

import pudistill

project = "pudistill"
author = "The pudistill developers"
copyright = author  # noqa: A001 (Sphinx's name)
version = release = pudistill.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
# The notebooks are shown; the texts that they are made from are not.
exclude_patterns = ["tutorials/*.md", "**.ipynb_checkpoints"]

# Markdown: links to headings work as on a forge. Notebooks were run by `make tutorials`.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # nothing is loaded from other sites

# Docstrings: numpydoc; a name in single backticks is a link where it has a page.
default_role = "py:obj"
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have types, with shapes
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False  # the template of a class lists them

html_theme = "pydata_sphinx_theme"
html_title = "pudistill"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {page: [] for page in ("index", "start_here", "citing", "generated/changelog")}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "github_url": pages.REPOSITORY,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Prompts and output are not copied.
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

# `make docs-links`: addresses of this repository and journals that answer people only.
linkcheck_ignore = [rf"{pages.REPOSITORY}.*", r"https://doi\.org/.*"]


def setup(app):
    """Make pages from the code and from files outside docs/ before Sphinx reads any page."""
    app.connect("builder-inited", pages.write_generated)
    app.connect("source-read", pages.read_page)
    app.connect("autodoc-skip-member", pages.skip_member)
