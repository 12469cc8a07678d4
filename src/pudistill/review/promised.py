"""What is promised now, as the rows of a small table."""

import math
from typing import Any

from pudistill.review.promises import Promises
from pudistill.utils.formats import estimate, percent


def as_rows(promises: Promises) -> dict[str, Any]:
    """Return promises as texts for a page.

    Parameters
    ----------
    promises : Promises
        The promises.

    Returns
    -------
    content : dict
        ``rows`` with ``name``, ``value`` and ``interval``; ``note``, a sentence on all of them.
    """
    if promises.doubt is not None:
        return {"rows": [], "note": f"Nothing is promised: {promises.doubt}"}
    rows = []
    for name, share in {
        "Labels right after correction": promises.labels_right,
        "Given labels wrong": promises.rate,
    }.items():
        if not math.isnan(share.value):
            value, interval = (text.unescape() for text in estimate(share.value, share.interval))
            rows.append({"name": name, "value": value, "interval": interval})
    shown = [found for found in promises.certified if found.n_accepted]
    for found in shown or promises.certified[-1:]:
        name = f"Usable, at most {100 * found.max_error:g} % of them wrong"
        value = f"{found.n_accepted:,}" if found.n_accepted else "none yet"
        part = percent(found.share).unescape() if found.n_accepted else ""
        rows.append({"name": name, "value": value, "interval": part})
    rests = f"from {promises.n_at_look:,} verified samples"
    looks = f"The next look is at {promises.n_next_look:,}."
    if not rows:
        return {"rows": [], "note": f"Nothing can be promised {rests}. {looks}"}
    note = (
        f"Known {rests}, about the labels that nobody verified. {looks} Each row holds with "
        f"{100 * promises.confidence:.4g}\xa0%, so that all looks together hold with 95\xa0%: stop "
        "whenever you like. The report looks once, so its intervals are narrower."
    )
    return {"rows": rows, "note": note}
