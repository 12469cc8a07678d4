"""Write the table of all settings, as in ``docs/reference/settings.md``.

python -m pudistill.runs.settings_table > docs/reference/settings.md
"""

import sys

from pydantic.fields import FieldInfo
from sklearn.utils._param_validation import Interval

from pudistill.classifier import PUDistillClassifier
from pudistill.data.options import PANELS, Setting, alternatives, choices_of, settings_of
from pudistill.runs.settings import Settings

BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
TYPES = {str: "text", int: "a whole number", float: "a number", bool: "yes, no"}
HEADER = """\
# Settings

Written by `python -m pudistill.runs.settings_table` from the declarations in
`src/pudistill/runs/settings.py` and `src/pudistill/data/options.py`; edit those, not this file.

`pudistill fit` has an option for each setting (`n_members`: `--n-members`), except those of the
chapter "Noise for experiments". A run's `config.toml` holds the settings under the names below, and
`pudistill fit --config run/config.toml` repeats the run. Parameters of `load_dataset` and
`PUDistillClassifier` have the same names, except `seed` (there `random_state`), `learner` and
`recipe` (there `estimator`), and `all_iterations` (there `tol=None`).
"""
COLUMNS = "| setting | default | values | meaning | only for |\n|---|---|---|---|---|\n"


def settings_table() -> str:
    """Return the table of all settings as markdown, a chapter for each panel of the help."""
    declared = settings_of(Settings)
    chapters = [
        f"## {panel}\n\n{COLUMNS}"
        + "".join(_row(name, declared[name]) for name in declared if declared[name].panel == panel)
        for panel in PANELS
    ]
    return "\n".join([HEADER, *chapters])


def _row(name: str, setting: Setting) -> str:
    field = Settings.model_fields[name]
    cells = [
        f"`{name}`",
        setting.default_text or _default(field),
        _values(name, field),
        setting.help,
        setting.only_for or "",
    ]
    return f"| {' | '.join(cells)} |\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    names = {None: "none", True: "yes", False: "no"}
    default = field.default
    return names[default] if default is None or isinstance(default, bool) else f"`{default}`"


def _values(name: str, field: FieldInfo) -> str:
    """Describe the allowed values; the classifier knows the ranges of its parameters."""
    constraints = PUDistillClassifier._parameter_constraints.get(name, [])
    ranges = [str(constraint) for constraint in constraints if isinstance(constraint, Interval)]
    limits = [
        bound.format(getattr(limit, kind))
        for limit in field.metadata
        for kind, bound in BOUNDS.items()
        if hasattr(limit, kind)
    ]
    kinds = [TYPES[kind] for kind in alternatives(field.annotation) if kind in TYPES]
    choices = [f"`{choice}`" for choice in choices_of(Settings, name)]
    if str in alternatives(field.annotation):
        return "text"  # the column "meaning" says more
    if ranges:
        kinds = [" or ".join(ranges)]
    elif limits:
        kinds = [f"{kind} {' and '.join(limits)}" for kind in kinds]
    elif choices and bool in alternatives(field.annotation):
        kinds = []  # "yes" and "no" are among the choices
    return ", ".join([*kinds, *choices])


if __name__ == "__main__":
    sys.stdout.write(settings_table())
