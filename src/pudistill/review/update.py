"""The settings with which `pudistill update` fits: those of the run, and what is new."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pudistill.exceptions import InputError, TrustedWarning, warn_user
from pudistill.review.decisions import COLUMNS, Decisions
from pudistill.review.samples import open_samples
from pudistill.review.session import PICKED, TRUSTED, Options, ReviewSession
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings


def settings_for_update(
    path: Path,
    trusted: Sequence[Path],
    added: Sequence[Path],
    *,
    merge: Sequence[str] = (),
    learner: str | None = None,
) -> Settings:
    """Return the settings of a fit that starts from a finished run.

    Parameters
    ----------
    path : Path
        The run.
    trusted : sequence of Path
        Tables of samples verified since; none: the decisions of `pudistill review`, if any.
    added : sequence of Path
        Further data.
    merge : sequence of str
        Classes to merge, as OLD=NEW. The fit does not start from the run then, which knows other
        classes.
    learner : str, default=None
        Name of a learner of the user's own, which no file may name.

    Returns
    -------
    settings : Settings
        The settings. Decisions are copied to a table in the run's folder ``review/``, so that the
        fit can be repeated after further decisions.

    Raises
    ------
    InputError
        If the run is not finished, or nothing is new.
    """
    run = Run.open_with_data(path)
    config = run.read_config()
    if learner is not None:
        config["learner"] = learner
    given = {"tracker": config.get("tracker")}
    if learner is not None:
        given["learner"] = learner
    Settings.check_trust(config, given, f"pudistill update {path}")
    settings = Settings.read(config)
    if not trusted and (decided := write_decided(run)) is not None:
        trusted = [decided]
        if n_skipped := len(Decisions(run.path).skipped()):
            warn_user(
                f"{n_skipped:,} samples were skipped. Rates, accuracies and certificates of the "
                "new run leave them out, as if their labels were as often wrong as others.",
                TrustedWarning,
            )
    if not trusted and not added and not merge:
        raise InputError(
            f"Nothing is new for {path}: verify samples with `pudistill review {path}`, or name "
            "them with --trusted, further data with --add, or classes with --merge."
        )
    changes = {
        "start_from": None if merge else str(path),
        "more_trusted": [*settings.more_trusted, *map(str, trusted)],
        "added": [*settings.added, *map(str, added)],
        "merge": [*settings.merge, *merge],
    }
    return settings.model_copy(update=changes)


def write_decided(run: Run) -> Path | None:
    """Write the decisions of a review as a trusted table of its own; None if there are none.

    Samples that were picked by hand follow those that were drawn, with the weight 0. If nothing was
    decided since the last one, that one is returned.
    """
    decisions = Decisions(run.path)
    if not any(decision.is_final for decision in decisions.in_force()):
        return None
    ReviewSession(run, Options(draws=False), open_samples).write_trusted()
    parts = [pd.read_csv(decisions.folder / TRUSTED, dtype=str, keep_default_na=False)]
    if (path := decisions.folder / PICKED).exists():
        picked = pd.read_csv(path, dtype=str, keep_default_na=False)
        parts.append(picked.assign(weight="0"))
    table, n = pd.concat(parts, ignore_index=True)[[*COLUMNS]], 1
    while (path := decisions.folder / f"trusted-{n}.csv").exists():
        if table.equals(pd.read_csv(path, dtype=str, keep_default_na=False)):
            return path
        n += 1
    return decisions.write(path.name, table)
