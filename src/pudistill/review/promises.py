"""What is promised of a run's labels while people verify further samples; nothing is trained.

Samples that are verified after the fit are judged by what models said of them that had not seen
their labels. Promises hold however often one looks, and whenever one stops: looks are at numbers of
verified samples that are fixed beforehand, and each spends a part of the error that all have
together. Between two looks, the promise of the last one stands.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.draws import Draws
from pudistill.distillation.certified_labels import judged_curve
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.distillation.noise_estimate import ORIGINALS
from pudistill.estimates.certificates import accept
from pudistill.estimates.shares import LEVEL, UNKNOWN, Share, rectified_share
from pudistill.exceptions import InputError
from pudistill.review.selection import ids_of, queues
from pudistill.runs.certificates import FILE, MAX_ERRORS, read_held_out_labels
from pudistill.runs.folder import Run

# How much the number of verified samples grows from look to look.
GROWTH = 1.25


class Certified(NamedTuple):
    """Labels of which, with the confidence of the look, at most a share is wrong.

    Attributes
    ----------
    max_error : float in (0, 1)
        That share.
    n_accepted : int
        Number of labels, of samples that nobody verified.
    share : float in [0, 1]
        Their share of all labels that nobody verified.

    Examples
    --------
    >>> from pudistill.review.promises import Certified
    >>> Certified(max_error=0.05, n_accepted=900, share=0.9).n_accepted
    900
    """

    max_error: float
    n_accepted: int
    share: float


class Promises(NamedTuple):
    """What is promised now.

    Attributes
    ----------
    n_verified : int
        Number of verified samples that judge labels, those of the fit included.
    n_skipped : int
        Number of drawn samples that nobody could label. Nothing is promised of these; they count
        as wrong in `labels_right` and `certified`, and as right or wrong, whichever is worse, in
        `rate`.
    look : int
        Number of this look, from 1.
    n_at_look, n_next_look : int
        Number of drawn samples that this promise rests on, and that of the next look.
    confidence : float
        Confidence of this look, which is higher than that of all looks together.
    rate : Share
        Share of wrong labels among the given ones that nobody verified; NaN if unknown.
    labels_right : Share
        Share of right labels among the corrected ones that nobody verified.
    certified : list of Certified
        Labels that can be used as they are, for each largest share of wrong labels.
    doubt : str or None
        Why nothing is promised.

    Examples
    --------
    >>> from pudistill.estimates.shares import UNKNOWN
    >>> from pudistill.review.promises import Promises
    >>> Promises(0, 0, 1, 0, 1, 0.97, UNKNOWN, UNKNOWN, [], doubt="Nothing is verified.").doubt
    'Nothing is verified.'
    """

    n_verified: int
    n_skipped: int
    look: int
    n_at_look: int
    n_next_look: int
    confidence: float
    rate: Share
    labels_right: Share
    certified: list[Certified]
    doubt: str | None = None


class Judged(NamedTuple):
    """What a fit said of all samples, and what is verified.

    Attributes
    ----------
    held_out : HeldOutLabels
        Labels and scores by models that have not seen the verified labels.
    truth : ndarray of shape (n_samples,), int
        Verified labels of the fit, as positions in the same names; -1 where there is none.
    is_wrong : ndarray of shape (n_samples,)
        Whether the given label of samples verified by the fit is wrong; NaN where that is unknown.
    wrong_proba : ndarray of shape (n_samples,)
        Probability that the given label is wrong, by models that have not seen the verified label;
        NaN where there is none.
    trusted : ndarray of shape (n_samples,), bool
        Samples that the fit took as verified, exact copies included; and those skipped before it.
    skipped : ndarray of shape (n_samples,), bool, or None
        Samples that were drawn before the fit, and that nobody could label.
    """

    held_out: HeldOutLabels
    truth: np.ndarray
    is_wrong: np.ndarray
    wrong_proba: np.ndarray
    trusted: np.ndarray
    skipped: np.ndarray | None = None

    @property
    def n_judged(self) -> int:
        """Number of samples drawn before the fit that judge its labels."""
        return int((self.trusted & ~np.isnan(self.held_out.score)).sum())


class Decided(NamedTuple):
    """Samples that were verified after the fit, in the order of drawing.

    Attributes
    ----------
    rows : ndarray of shape (n_decided,), int
        Their rows.
    truth : ndarray of shape (n_decided,), int
        Their labels; -1 where the sample is of no class of the fit.
    is_wrong : ndarray of shape (n_decided,)
        Whether the given label is wrong; NaN where there is none.
    weight : ndarray of shape (n_decided,)
        Weights of the draws.
    is_skipped : ndarray of shape (n_decided,), bool
        Whether nobody could label the sample.
    """

    rows: np.ndarray
    truth: np.ndarray
    is_wrong: np.ndarray
    weight: np.ndarray
    is_skipped: np.ndarray

    def first(self, n: int) -> "Decided":
        """Return the first ones."""
        return Decided(*(values[:n] for values in self))


def promises(
    run: Run,
    decided: pd.DataFrame,
    *,
    confidence: float = LEVEL,
    max_errors: Sequence[float] = MAX_ERRORS,
    looks_before: int = 0,
    skipped_before: pd.DataFrame | None = None,
) -> Promises:
    """Say what is promised of a run's labels, with samples that were verified since.

    Parameters
    ----------
    run : Run
        A finished run of `pudistill fit`.
    decided : DataFrame
        Columns ``id``, ``label`` (missing where the sample was skipped) and ``weight`` (of the
        draw; missing: it was picked by hand, and proves nothing). Samples that the fit took as
        verified are left out. Rows are in the order of drawing.
        Of samples in the queues of the run, those count that were decided before the first gap.
    confidence : float in (0, 1), default=0.95
        Probability that the promises of all looks hold together, for each kind of promise.
    max_errors : sequence of float, default=(0.01, 0.02, 0.05, 0.1)
        Largest shares of wrong labels among certified ones.
    looks_before : int, default=0
        Looks that were spent on earlier fits of the same review.
    skipped_before : DataFrame, default=None
        Columns ``id`` and ``weight`` of samples that were drawn before the fit, and that nobody
        could label. They count as `Promises.n_skipped` says.

    Returns
    -------
    promises : Promises
        The promises of the last look.

    Raises
    ------
    InputError
        If the run has no labels by models that have not seen verified ones, or an id is unknown or
        occurs twice.

    References
    ----------
    As `estimates.certificates` and `estimates.shares`, with the error spent over looks.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.review.promises import promises
    >>> from pudistill.runs.fit import fit_run
    >>> from pudistill.runs.settings import Settings
    >>> folder = Path(tempfile.mkdtemp())
    >>> data, checked = str(folder / "wine.csv"), str(folder / "checked.csv")
    >>> wine = load_wine(as_frame=True).frame.rename(columns={"target": "label"})
    >>> wine.rename_axis("id").to_csv(data)
    >>> wine["label"].sample(60, random_state=0).rename_axis("id").to_csv(checked)
    >>> settings = Settings(data=data, trusted=checked, n_members=5, max_iter=2)
    >>> run = fit_run(settings, folder / "run")
    >>> promises(run, pd.DataFrame(columns=["id", "label", "weight"])).n_verified
    60
    """
    if not run.has(FILE):
        raise InputError(
            f"Nothing can be promised of {run.path}: it has no {FILE}, which `pudistill fit` "
            "writes with --method default and without verified labels for all samples."
        )
    held_out, names = read_held_out_labels(run)
    table = run.read_table("labels")
    noise = run.read_json("metrics.json").get("noise") or {}
    judged = _judged(table, held_out, names, has_originals=noise.get("basis") == ORIGINALS)
    if skipped_before is not None:
        judged = _with_skipped(judged, table, skipped_before)
    return promises_of(
        judged,
        _read_decided(run, table, names, decided),
        confidence=confidence,
        max_errors=max_errors,
        looks_before=looks_before,
    )


def reached(promises: Promises, max_error: float, share: float = 1.0) -> bool:
    """Return whether a share of the labels, all by default, is certified for a largest error."""
    return any(
        found.max_error <= max_error and found.share >= share for found in promises.certified
    )


def promises_of(
    judged: Judged,
    decided: Decided,
    *,
    confidence: float = LEVEL,
    max_errors: Sequence[float] = MAX_ERRORS,
    looks_before: int = 0,
) -> Promises:
    """Compute the promises of the last look; for the parameters see `promises`."""
    n_fit, n_now = judged.n_judged, judged.n_judged + len(decided.rows)
    look, n_at_look, n_next = last_look(n_fit, n_now)
    level = confidence_of_look(look + looks_before, confidence)
    n_skipped = int(decided.is_skipped.sum())
    n_skipped += 0 if judged.skipped is None else int(judged.skipped.sum())
    about = n_now - n_skipped, n_skipped, look + looks_before, n_at_look, n_next, level
    if judged.held_out.doubt is not None:
        return Promises(*about, UNKNOWN, UNKNOWN, [], judged.held_out.doubt)
    return Promises(*about, *estimates(judged, decided.first(n_at_look - n_fit), level, max_errors))


def estimates(
    judged: Judged, decided: Decided, level: float = LEVEL, max_errors: Sequence[float] = MAX_ERRORS
) -> tuple[Share, Share, list[Certified]]:
    """Return rate, labels right and certified labels as of now, for one look at this confidence.

    Where one can look more than once, `promises_of` decides what may be shown.
    """
    now = _with_decided(judged, decided)
    return (
        _rate(judged, decided, now, level),
        _labels_right(now, level),
        _certified(now, level, max_errors),
    )


def looks_at(run: Run, n_decided: int) -> int:
    """Return how many looks there were at the promises of a run with so many samples decided."""
    held_out, _ = read_held_out_labels(run)
    trusted = run.read_table("labels")["trusted"].to_numpy(bool)
    n_fit = int((trusted & ~np.isnan(held_out.score)).sum())
    return last_look(n_fit, n_fit + n_decided)[0]


def last_look(n_fit: int, n_now: int) -> tuple[int, int, int]:
    """Return the number of the last look, that of the samples it was at, and of the next one.

    The first look is at the fit; from look to look the number of samples grows by a quarter. So
    the moments do not depend on the labels.

    Examples
    --------
    >>> from pudistill.review.promises import last_look
    >>> last_look(100, 124), last_look(100, 130)
    ((1, 100, 125), (2, 125, 157))
    """
    look, n, following = 1, n_fit, _after(n_fit)
    while following <= n_now:
        look, n, following = look + 1, following, _after(following)
    return look, n, following


def _after(n: int) -> int:
    return max(math.ceil(GROWTH * n), n + 1)


def confidence_of_look(look: int, confidence: float = LEVEL) -> float:
    """Return the confidence of one look, so that all looks together have the wanted one.

    The errors ``6 / (pi look) ** 2`` sum to 1.
    """
    return 1 - (1 - confidence) * 6 / (math.pi * look) ** 2


class _Now(NamedTuple):
    """All verified samples that judge, in the order of drawing, and those that nobody verified."""

    held_out: HeldOutLabels  # with the draws of all
    truth: np.ndarray  # (n_samples,): -2 is no label of a model
    trusted: np.ndarray  # (n_samples,), bool: verified, or skipped
    rows: np.ndarray  # (n_judged,)
    weight: np.ndarray | None  # (n_samples,): what each stands for

    @property
    def rest(self) -> np.ndarray:
        return ~self.trusted


def _with_decided(judged: Judged, decided: Decided) -> _Now:
    held_out, n = judged.held_out, len(judged.truth)
    truth, trusted = np.where(judged.trusted, judged.truth, -2), judged.trusted.copy()
    truth[decided.rows] = np.where(decided.is_skipped | (decided.truth < 0), -2, decided.truth)
    trusted[decided.rows] = True
    weight, order = np.full(n, np.nan), np.full(n, -1)
    if held_out.draw_weight is not None and held_out.draw_order is not None:
        weight, order = held_out.draw_weight.copy(), held_out.draw_order.copy()
    else:
        weight[judged.trusted & ~np.isnan(held_out.score)] = 1.0
        order[judged.trusted] = 0
    weight[decided.rows] = decided.weight
    order[decided.rows] = order.max(initial=0) + 1 + np.arange(len(decided.rows))
    draws = Draws.of(weight, order)
    rows = np.flatnonzero(trusted & ~np.isnan(held_out.score) & ~np.isnan(weight))
    stands_for = None if draws is None else draws.for_means(int((~trusted).sum()))
    return _Now(held_out.drawn_as(draws), truth, trusted, rows, stands_for)


def _labels_right(now: _Now, level: float) -> Share:
    score = now.held_out.score
    if not now.rest.any() or len(now.rows) == 0:
        return UNKNOWN
    return rectified_share(
        now.held_out.label[now.rows] == now.truth[now.rows],
        score[now.rows] - np.nanmean(score[now.rest]),
        int(now.rest.sum()),
        worth=now.held_out.worth,
        weight=None if now.weight is None else now.weight[now.rows],
        level=level,
    )


def _rate(judged: Judged, decided: Decided, now: _Now, level: float) -> Share:
    """Estimate the rate; samples that were skipped count as right or wrong, whichever is worse."""
    wrong, control = judged.is_wrong.copy(), judged.wrong_proba.copy()
    wrong[decided.rows] = decided.is_wrong
    skipped = np.zeros(len(wrong), dtype=bool) if judged.skipped is None else judged.skipped.copy()
    skipped[decided.rows[decided.is_skipped]] = True
    rows = now.rows[~np.isnan(wrong[now.rows]) | skipped[now.rows]]
    rest = now.rest & ~np.isnan(judged.wrong_proba)
    if len(rows) == 0 or not rest.any():
        return UNKNOWN
    control -= judged.wrong_proba[rest].mean()
    # The noise of a class can differ, so no group is worth more here than for labels.
    low, high = (
        rectified_share(
            np.where(skipped[rows], outcome, wrong[rows]).astype(bool),
            control[rows],
            int(rest.sum()),
            worth=now.held_out.worth,
            weight=None if now.weight is None else now.weight[rows],
            level=level,
        )
        for outcome in (False, True)
    )
    return Share((low.value + high.value) / 2, (low.interval[0], high.interval[1]))


def _certified(now: _Now, level: float, max_errors: Sequence[float]) -> list[Certified]:
    try:
        curve = judged_curve(now.truth, now.trusted, now.held_out)
    except InputError:  # nothing was held out
        return []
    found = [(most, accept(curve, most, level).n_accepted) for most in max_errors]
    return [Certified(most, n, n / max(curve.n_samples, 1)) for most, n in found]


def _judged(
    table: pd.DataFrame, held_out: HeldOutLabels, names: np.ndarray, *, has_originals: bool
) -> Judged:
    trusted, given = table["trusted"].to_numpy(bool), table["given"]
    verified = trusted & has_originals & given.notna().to_numpy()
    wrong_proba = np.where(
        trusted, np.nan, 1 - table["given_quality"].to_numpy(float, na_value=np.nan)
    )
    if held_out.given_score is not None:
        wrong_proba = 1 - held_out.given_score.astype(float)
    return Judged(
        held_out,
        np.where(trusted, pd.Categorical(table["label"], categories=names).codes, -1),
        np.where(verified, (given != table["label"]).to_numpy(), np.nan),
        wrong_proba,
        trusted,
    )


def _with_skipped(judged: Judged, table: pd.DataFrame, skipped: pd.DataFrame) -> Judged:
    """Add samples that were drawn before the fit and skipped, as drawn last, and of no label."""
    rows = pd.Index(table["id"].astype(str)).get_indexer(pd.Index(skipped["id"].astype(str)))
    weight_of_row = pd.to_numeric(skipped["weight"], errors="coerce").to_numpy(float)
    kept = (rows >= 0) & ~np.isnan(weight_of_row) & ~judged.trusted[rows]
    rows, weight_of_row = rows[kept], weight_of_row[kept]
    held_out = judged.held_out
    if held_out.draw_weight is not None and held_out.draw_order is not None:
        weight, order = held_out.draw_weight.copy(), held_out.draw_order.copy()
    else:
        weight = np.where(judged.trusted & ~np.isnan(held_out.score), 1.0, np.nan)
        order = np.where(judged.trusted, 0, -1)
    weight[rows] = weight_of_row
    order[rows] = order.max(initial=0) + 1 + np.arange(len(rows))
    truth, trusted = judged.truth.copy(), judged.trusted.copy()
    truth[rows], trusted[rows] = -2, True
    is_skipped = np.isin(np.arange(len(trusted)), rows)
    held_out = held_out.drawn_as(Draws.of(weight, order))
    return judged._replace(held_out=held_out, truth=truth, trusted=trusted, skipped=is_skipped)


def _read_decided(
    run: Run, table: pd.DataFrame, names: np.ndarray, decided: pd.DataFrame
) -> Decided:
    """Return the decisions that count, in the order of drawing."""
    ids = decided["id"].astype(str).to_numpy()
    rows = pd.Index(table["id"].astype(str)).get_indexer(pd.Index(ids))
    if (rows < 0).any():
        raise InputError(
            f"{ids[rows < 0][0]!r} was decided, but {run.path} has no such sample: these are the "
            "decisions of another run."
        )
    if len({*ids}) < len(ids):
        name = pd.Series(ids)[pd.Series(ids).duplicated()].iloc[0]
        raise InputError(f"{name!r} was decided twice: keep the last decision.")
    weight = pd.to_numeric(decided["weight"], errors="coerce").to_numpy(float, na_value=np.nan)
    weight = np.where(table["trusted"].to_numpy(bool)[rows], np.nan, weight)
    kept = _in_order_of_drawing(run, ids, ~np.isnan(weight))
    rows, weight = rows[kept], weight[kept]
    label = decided["label"].iloc[kept]
    given = table["given"].iloc[rows]
    differs = given.astype(object).to_numpy() != label.astype(object).to_numpy()
    has_both = given.notna().to_numpy() & label.notna().to_numpy()
    return Decided(
        rows,
        pd.Categorical(label, categories=names).codes.astype(int),
        np.where(has_both, differs, np.nan),
        weight,
        label.isna().to_numpy(),
    )


def _in_order_of_drawing(run: Run, ids: np.ndarray, was_drawn: np.ndarray) -> np.ndarray:
    """Return positions of drawn samples; of those in queues, up to the first undecided one."""
    position = {name: at for at, name in enumerate(ids)}
    queued = [name for path in queues(run) for name in ids_of(path, ids)]
    in_queues = {*queued}
    in_order = [position[name] for name in _until_gap(queued, position)]
    decided = [at for at in in_order if was_drawn[at]]
    others = [at for at, name in enumerate(ids) if name not in in_queues and was_drawn[at]]
    return np.array([*decided, *others], dtype=int)


def _until_gap(queued: Sequence[str], known: dict[str, int]) -> list[str]:
    """Return the first names that are all known."""
    first = next((at for at, name in enumerate(queued) if name not in known), len(queued))
    return list(queued[:first])
