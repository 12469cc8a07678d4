"""Pages of the site that are made when it is built, and links that leave docs/.

Pages are read on a forge, too, so they link relatively to any file of the repository. On the site,
a link to a file outside docs/ leads to the repository.
"""

import inspect
import json
import os
import re
from pathlib import Path

import typer
from sphinx.util import logging
from typer.cli import get_docs_for_click

from pudistill.cli.commands import app as command_line

REPOSITORY = "https://github.com/pudistill/pudistill"
DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"
# Files of the repository that the site shows as pages.
SHOWN = {ROOT / name: GENERATED / name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md")}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^()#\s]+)(#[^()\s]*)?(?=\))")
COMMANDS = """\
All commands with all their options, as `pudistill COMMAND --help` shows them. Settings that a file
`config.toml` can hold, too: [settings](../reference/settings.md).
"""


def write_generated(app):
    """Write the page of all commands, and copies of the files that the site shows as pages."""
    GENERATED.mkdir(exist_ok=True)
    _write(GENERATED / "command_line.md", _commands())
    for source, page in SHOWN.items():
        _write(page, with_links(source.read_text("utf-8"), source, page))


def read_page(app, docname, source):
    """Turn links that leave docs/ into addresses, when Sphinx reads a page."""
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md":
        source[0] = with_links(source[0], page, page)
    elif page.suffix == ".ipynb":
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = with_links("".join(cell["source"]), page, page)
        source[0] = json.dumps(notebook)


def with_links(text, source, page):
    """Return the markdown of `source` with the links that it needs as the site's page `page`."""

    def target(match):
        path, anchor = Path(os.path.normpath(source.parent / match[1])), match[2] or ""
        if not path.exists():
            logging.getLogger(__name__).warning("no such file: %s", match[1], location=str(source))
        path = SHOWN.get(path, path)
        if path.is_relative_to(DOCS):
            return Path(os.path.relpath(path, page.parent)).as_posix() + anchor
        return f"{REPOSITORY}/blob/main/{path.relative_to(ROOT).as_posix()}{anchor}"

    return LINK.sub(target, text)


def skip_member(app, what, name, member, skip, options):
    """Show methods and properties of this package: docstrings list other attributes."""
    function = getattr(member, "fget", None) or getattr(member, "func", member)
    made_in = getattr(inspect.unwrap(function), "__module__", None) or ""
    return skip or not made_in.startswith("pudistill")


def _commands():
    command = typer.main.get_command(command_line)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="pudistill", title="The command line"
    )
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{COMMANDS}{rest}"


def _write(path, text):
    """Write a file whose content is new, so that Sphinx does not read unchanged pages again."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")
