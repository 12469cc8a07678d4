"""Which samples of a run to verify next: some at random, some by what is gained."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.columns import without_apostrophes
from pudistill.distillation.certified_labels import check_share
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.exceptions import InputError, TrustedWarning, warn_user
from pudistill.review.drawing import CHOSEN, RANDOM, draw
from pudistill.runs.certificates import FILE, read_held_out_labels
from pudistill.runs.folder import Run, to_csv
from pudistill.utils.files import write_atomic

FOLDER = "review"  # in the run

# Share of the draws by gain that serve the certificate, and the part of the samples, around its
# threshold, that they are drawn from.
NEAR_SHARE, NEAR = 0.1, 0.1

# Power of the doubt: it leaves little to the many samples that are sure. With 3, estimates on real
# data are as precise as from uniform draws; with 6, a fifth less so.
POWER = 3

DOUBTED, UNSURE_CLASS = "the corrected label is unsure", "little is known of the class"
AT_THRESHOLD, AT_RANDOM = "decides how many labels can be certified", "at random"

NO_SCORES = (
    "This run says of no sample how sure its label is, by models that have not seen the label: all "
    "samples are drawn at random."
)


class Gain(NamedTuple):
    """What it is worth to verify each sample.

    Attributes
    ----------
    value : ndarray of shape (n_samples,)
        Draws by gain are in proportion to it; NaN where a sample is verified.
    reason : ndarray of object, shape (n_samples,)
        The largest part of it, in words.
    """

    value: np.ndarray
    reason: np.ndarray


def next_samples(
    run: Run,
    budget: int,
    *,
    random_share: float = 0.5,
    max_error: float = 0.02,
    seed: int = 0,
    leave_out: Any = (),
) -> pd.DataFrame:
    """Draw the samples of a finished run to verify next.

    Parameters
    ----------
    run : Run
        A finished run of `pudistill fit`.
    budget : int
        Number of samples, at least 1.
    random_share : float in (0, 1], default=0.5
        Share of the draws that are at random. The less, the more an estimate can vary: no weight
        is above ``1 / random_share``.
    max_error : float in (0, 1), default=0.02
        Of the labels that are to be certified, see `CertifiedLabels`.
    seed : int, default=0
        Seed of the draws.
    leave_out : collection of str, default=()
        Ids of samples that were drawn before.

    Returns
    -------
    queue : DataFrame
        Columns ``id``, ``weight`` (of the draw, see `Draws`), ``part`` ("random" or "chosen"),
        ``given``, ``label`` (as corrected), ``confidence`` and ``reason``, in the order of drawing.
        Any number of first rows is a valid sample. Groups do not matter for the draws: estimates
        take groups into account, and assume that samples of a group are drawn as all others.

    Raises
    ------
    InputError
        If a number is out of range, or fewer samples are left.
    """
    table = run.read_table("labels")
    is_left = ~(table["trusted"].to_numpy(bool) | table["id"].isin([*leave_out]).to_numpy())
    _check(budget, int(is_left.sum()), random_share, max_error)
    gain = expected_gain(run, table, is_left, max_error)
    drawn = draw(gain.value, budget, random_share, np.random.default_rng(seed))
    queue = table.loc[drawn.rows, ["id", "given", "label", "confidence"]].reset_index(drop=True)
    queue.insert(1, "weight", drawn.weight)
    queue.insert(2, "part", np.where(drawn.is_chosen, CHOSEN, RANDOM))
    queue["reason"] = np.where(drawn.is_chosen, gain.reason[drawn.rows], AT_RANDOM)
    return queue


def _check(budget: Any, n_left: int, random_share: float, max_error: float) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise InputError(f"The budget is {budget!r}: give the number of samples, at least 1.")
    if budget > n_left:
        raise InputError(
            f"The budget is {budget:,}, but only {n_left:,} samples of the run are not verified: "
            "give a smaller number."
        )
    if not 0 < random_share <= 1:
        raise InputError(
            f"The random share is {random_share:g}: it must be above 0 and at most 1, because "
            "estimates need samples that can be any."
        )
    check_share("max_error", max_error)


def expected_gain(run: Run, table: pd.DataFrame, is_left: np.ndarray, max_error: float) -> Gain:
    """Say what it is worth to verify each sample of a run; for the parameters see `next_samples`.

    A verified label is worth most where the corrected label is unsure, whatever was given: it is
    the corrected label that is right from then on. Where sources disagree, it is unsure, too. It is
    worth up to twice as much if the noise of its class is unknown. Some draws serve the
    certificate: they are of samples around the score down to which the models themselves expect
    that at most `max_error` of the labels are wrong.
    """
    n = len(table)
    uniform = Gain(np.where(is_left, 0.0, np.nan), np.full(n, AT_RANDOM, dtype=object))
    if not run.has(FILE):
        warn_user(NO_SCORES, TrustedWarning)
        return uniform
    held_out, names = read_held_out_labels(run)
    score = held_out.score.astype(float)
    if np.isnan(score[is_left]).all():
        warn_user(NO_SCORES, TrustedWarning)
        return uniform
    label = pd.Categorical(table["label"], categories=names).codes
    # An outlier is of no class, rather than unsure: its confidence says nothing of the others.
    outlier = table["outlier"].fillna(False).to_numpy(bool)
    sure = np.where(outlier, score, table["confidence"].to_numpy(float))
    return gain_of(held_out, label, sure, is_left, _unsure_classes(run, names), max_error)


def gain_of(
    held_out: HeldOutLabels,
    label: np.ndarray,
    confidence: np.ndarray,
    is_left: np.ndarray,
    unsure_classes: np.ndarray,
    max_error: float,
) -> Gain:
    """Compute `expected_gain`.

    Parameters
    ----------
    held_out : HeldOutLabels
        Labels and scores by models that have not seen verified labels.
    label : ndarray of shape (n_samples,), int
        Corrected labels.
    confidence : ndarray of shape (n_samples,)
        Their probabilities.
    is_left : ndarray of shape (n_samples,), bool
        Samples that can be drawn.
    unsure_classes : ndarray of shape (n_classes,)
        How little is known of the noise of each class, from 0 to 1.
    max_error : float in (0, 1)
        See `next_samples`.
    """
    value = np.where(is_left, 0.0, np.nan)
    reason = np.full(len(label), AT_RANDOM, dtype=object)
    doubt = 1 - np.where(np.isnan(confidence), 0.5, confidence)[is_left]
    unsure = unsure_classes[label[is_left]]
    gain = doubt**POWER * (1 + unsure)
    near = _near_threshold(held_out.score.astype(float)[is_left], max_error)
    gain /= max(gain.sum(), 1e-300)
    near /= max(near.sum(), 1e-300)
    value[is_left] = (1 - NEAR_SHARE) * gain + NEAR_SHARE * near
    reasons = np.where(unsure > 0.5, UNSURE_CLASS, DOUBTED)
    reason[is_left] = np.where(near * NEAR_SHARE > gain, AT_THRESHOLD, reasons)
    return Gain(value, reason)


def _unsure_classes(run: Run, names: np.ndarray) -> np.ndarray:
    """Return how little is known of the noise of each class: (n_names,), from 0 to 1.

    It is the width of the interval of its noise rate.
    """
    noise = run.read_json("metrics.json").get("noise") or {}
    intervals = np.array(noise.get("class_rate_interval") or np.zeros((0, 2)), dtype=float)
    width = np.zeros(len(names))
    width[: len(intervals)] = intervals[:, 1] - intervals[:, 0]
    return width


def _near_threshold(score: np.ndarray, max_error: float) -> np.ndarray:
    """Mark the samples around the score from which the scores promise at most `max_error`."""
    order = np.argsort(-score, kind="stable")  # NaN comes last
    expected = np.cumsum(1 - score[order]) / np.arange(1, len(score) + 1)
    n_promised = int((expected <= max_error).sum())
    if n_promised == 0:
        return np.zeros(len(score))
    half = max(1, int(NEAR / 2 * len(score)))
    near = np.zeros(len(score))
    near[order[max(0, n_promised - half) : n_promised + half]] = 1.0
    return near


def write_queue(
    run: Run,
    budget: int,
    output: Path | None = None,
    *,
    seed: int = 0,
    leave_out: Iterable[str] = (),
    **options: Any,
) -> tuple[Path, pd.DataFrame]:
    """Draw the samples to verify next, and write them as a CSV file.

    Parameters
    ----------
    run, budget, seed, leave_out, **options
        See `next_samples`; samples of earlier queues in the run folder are left out.
    output : Path, default=None
        The file, which must not exist; by default the next ``review/queue-N.csv`` in the run
        folder.

    Returns
    -------
    path : Path
        The file.
    queue : DataFrame
        What it holds.
    """
    earlier = queues(run)
    drawn = [*leave_out, *(name for path in earlier for name in ids_of(path, _ids(run)))]
    seeds = np.random.SeedSequence([seed, len(earlier)]).generate_state(1)
    queue = next_samples(run, budget, seed=int(seeds[0]), leave_out=drawn, **options)
    if output is None:
        return write_new_queue(run, queue), queue
    write_atomic(output, to_csv(queue).encode())
    return output, queue


def write_new_queue(run: Run, queue: pd.DataFrame) -> Path:
    """Write the next queue of a run, under a name that no other process takes; return its path."""
    path = run.path / FOLDER / f"queue-{len(queues(run)) + 1}.csv"
    path.parent.mkdir(exist_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise InputError(
            f"{path} was written by another command just now: run this one again."
        ) from None
    try:
        write_atomic(path, to_csv(queue).encode())
    except BaseException:
        path.unlink(missing_ok=True)  # an empty file would be read as a queue
        raise
    return path


def queues(run: Run) -> list[Path]:
    """List the queues in a run folder, in the order in which they were drawn."""
    numbered = (run.path / FOLDER / f"queue-{number}.csv" for number in itertools.count(1))
    return list(itertools.takewhile(Path.exists, numbered))


def _ids(run: Run) -> Iterator[str]:
    """Yield the ids of a run; the table is only read if they are asked for."""
    yield from run.read_table("labels")["id"]


def ids_of(path: Path, of_run: Iterable[str]) -> list[str]:
    """Return the ids in a queue of a run with some ids."""
    try:
        ids = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["id"])["id"]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a queue ({error}): move it away if it is none."
        ) from error
    return without_apostrophes(ids, of_run).tolist()
