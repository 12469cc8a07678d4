"""Filling the page templates: everything from the data is escaped, nothing is loaded."""

from typing import Any

import jinja2

from pudistill.report import formats
from pudistill.report.palette import DARK, FONT, LIGHT


def fill(template: str, **content: Any) -> str:
    """Fill a template of this folder.

    Parameters
    ----------
    template : str
        Its file name.
    **content
        What it shows; text is escaped unless it is ``Markup``.

    Returns
    -------
    str
        HTML document that can be written as UTF-8.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pudistill.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"light": LIGHT, "dark": DARK, "font": FONT}
    environment.filters |= {
        "percent": formats.percent,
        "value": formats.value,
        "integer": formats.integer,
    }
    text = environment.get_template(template).render(**content)
    # A file name may hold bytes that are no text; they could not be written to a file as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")
