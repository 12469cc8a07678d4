"""Whether the correction helps each class, measured on held-out verified samples."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.estimates.shares import rectified_share, weighted_mean
from pudistill.exceptions import DataWarning, warn_user
from pudistill.labels.table import LabelTable
from pudistill.utils.shown import first_few, shown

# A class is called harmed if chance alone would lose so many more labels than it gains in at most
# this share of the cases. With many classes, some are called so by chance: it is no proof, and the
# warning asks a person to look.
CHANCE = 0.1


def accuracy_by_class(table: LabelTable, held_out: HeldOutLabels) -> pd.DataFrame | None:
    """Compare given and corrected labels of held-out verified samples, class by class.

    Parameters
    ----------
    table : LabelTable
        Given and verified labels.
    held_out : HeldOutLabels
        Labels by models that have not seen the verified ones.

    Returns
    -------
    classes : DataFrame or None
        A row for each true class with a held-out verified sample; the index has its name. ``n``:
        number of these samples that had a given label. ``before``, ``after``: share of the given
        and of the corrected labels that are right, from 0 to 1. ``low``, ``high``: 95 % interval of
        `after`, exact if verified samples are a random sample. ``lost``, ``gained``: number of
        right labels that became wrong, and of wrong ones that became right. ``is_harmed``: whether
        more were lost than gained, by more than chance explains in nine of ten cases, each class by
        itself. None if given labels of verified samples are not known.
    """
    if held_out.given_score is None:
        return None
    rows, weight = held_out.counted(table.trusted)
    had_label = table.given[rows] >= 0
    found: dict[Any, dict[str, Any]] = {}
    for code in np.unique(table.label[rows[had_label]]):
        among = had_label & (table.label[rows] == code)
        of_class, of_draw = rows[among], None if weight is None else weight[among]
        was_right, is_right = table.given[of_class] == code, held_out.label[of_class] == code
        after = rectified_share(
            is_right,
            np.full(len(of_class), np.nan),
            max(1, int((table.label[~table.trusted] == code).sum())),
            worth=held_out.worth,
            weight=of_draw,
        )
        lost, gained = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
        before = float(np.clip(weighted_mean(was_right, of_draw), 0, 1))
        found[table.names[code]] = {
            "n": len(of_class),
            "before": before,
            "after": after.value,
            "low": after.interval[0],
            "high": after.interval[1],
            "lost": lost,
            "gained": gained,
            "is_harmed": after.value < before
            and lost > gained
            and binomtest(lost, lost + gained, 0.5, "greater").pvalue <= CHANCE,
        }
    return pd.DataFrame.from_dict(found, orient="index") if found else None


def warn_of_harm(classes: pd.DataFrame | None) -> None:
    """Warn of the classes whose labels the correction seems to make worse."""
    if classes is None:
        return
    harmed = [
        f"class {shown(name)}: of {row['n']} verified samples of it, {row['lost']} right labels "
        f"would become wrong, and {row['gained']} wrong ones right"
        for name, row in classes[classes["is_harmed"]].iterrows()
    ]
    if harmed:
        warn_user(
            f"The correction seems to harm {first_few(harmed, '; ')}. Look at the changes of "
            f"{'this class' if len(harmed) == 1 else 'these classes'} before you use them, or "
            "verify more samples.",
            DataWarning,
        )
