"""Fill the HTML templates of this folder; text from the data is escaped."""

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from pudistill.runs.report.palette import DARK, FONT, LIGHT
from pudistill.utils import formats


def fill(template: str, **content: Any) -> str:
    """Fill a template of this folder.

    Parameters
    ----------
    template : str
        File name of the template.
    **content
        Variables of the template; text is escaped unless it is ``Markup``.

    Returns
    -------
    str
        The HTML document, which can be written as UTF-8.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pudistill.runs.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"light": LIGHT, "dark": DARK, "font": FONT}
    script = resources.files("pudistill.runs.report").joinpath("changes.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}
    environment.filters |= {
        "with_code": formats.with_code,
        "percent": formats.percent,
        "value": formats.value,
        "integer": formats.integer,
    }
    text = environment.get_template(template).render(**content)
    # A file name can contain bytes that UTF-8 cannot encode.
    return text.encode("utf-8", "replace").decode("utf-8")
