"""Training that knows the noise: every given label is used, with one setting for all levels.

What reads no noisy label comes first: a model of the trusted samples and the teachers, blended
into a first guess (`prepare`). Then given labels and guesses are combined by Bayes' rule, a student
learns from the result, and its predictions replace the guess; this repeats (`learn`). A network
does the same within one training, as a loss. At last candidates are compared on held-out trusted
samples (`learn_and_compare`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.utils.validation import _num_samples

from pudistill.calibration import Temperature, log_likelihood, mixture_weights
from pudistill.comparison import Comparison, compare, unjudged
from pudistill.distillation import average_proba, train_teachers
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.learners import (
    Mixture,
    Training,
    continues_training,
    cross_fit_proba,
    in_order,
    predict_proba,
    rows_in_order,
    train,
    train_all,
)
from pudistill.noise_estimation import (
    NoiseEstimate,
    Originals,
    combine,
    estimate_noise,
    fit_transition_matrix,
    known_originals,
)
from pudistill.progress import stage
from pudistill.pseudo_labels import likelihood, one_hot, posterior
from pudistill.rowwise import computed, rowwise, take_rows
from pudistill.units import kept
from pudistill.validation import MISSING, Labels

MAX_ROUNDS = 6
# Rounds end when the posteriors of noisy samples move by less than this, in total variation.
SETTLED = 0.01
# A class with less than this share of the likeliest one's posterior is left out of it: it costs
# a weighted copy of the sample in every fit, and says next to nothing.
NEGLIGIBLE = 0.1
# Samples up to which predictions are cross-fitted in so many folds: the fewer samples, the more a
# model misses those that are left out.
FOLDS_BY_SIZE = ((5_000, 5), (20_000, 3), (np.inf, 2))
# Enough held-out trusted samples to tell candidates apart; more cost time and tell little more.
ENOUGH_HELD_OUT = 400
# Who is believed less than this is left out of a mixture.
SMALLEST_SHARE = 0.05
# Samples that speak beforehand for the guess, the student and the given labels. The student has
# learned from all that the others know: where it is worse than training on given labels, the
# transition matrix went wrong, which is rare.
PRIOR_OF_MIXTURE = (1.0, 3.0, 1.0)
# Self-training takes predictions from this probability on for labels, so many times at most: the
# defaults of scikit-learn.
CONFIDENT, SELF_TRAININGS = 0.75, 10
# Folds in views with samples held out, which judge the way and not the result.
HELD_OUT_FOLDS = 2


@dataclass(frozen=True)
class View:
    """The labels as they look while some trusted samples are held out.

    Attributes
    ----------
    verified : ndarray of shape (n_samples,), int
        Codes of the samples that are trusted here, -1 elsewhere.
    given : ndarray of shape (n_samples,), int
        Given labels of all others; -1 where there is none or nobody knows it.
    held_out : ndarray, int
        Rows of the trusted samples that are not trusted here.
    """

    verified: np.ndarray
    given: np.ndarray
    held_out: np.ndarray

    @property
    def trusted(self) -> np.ndarray:
        """Rows of the samples that are trusted here."""
        return np.flatnonzero(self.verified != MISSING)

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the others that have a given label."""
        return np.flatnonzero((self.verified == MISSING) & (self.given != MISSING))

    def holding_out(self, rows: np.ndarray, given: np.ndarray | None) -> "View":
        """Return the view without the verified labels of `rows`, whose given ones may be known."""
        verified, others = self.verified.copy(), self.given.copy()
        verified[rows] = MISSING
        others[rows] = MISSING if given is None else given[rows]
        return View(verified, others, rows)


def whole_view(labels: Labels) -> View:
    """View everything: no trusted sample is held out."""
    given = np.where(labels.trusted, MISSING, labels.given)
    return View(labels.verified, given, np.arange(0))


def held_out_rows(folds: np.ndarray, *, at_most: int | None = None) -> list[np.ndarray]:
    """List folds of trusted samples, as many as it takes to hold out enough samples.

    Parameters
    ----------
    folds : ndarray of shape (n_samples,), int
        Fold of each trusted sample, -1 for others.
    at_most : int, default=None
        Largest number of folds.

    Returns
    -------
    rows : list of ndarray of int
        Rows of each fold.
    """
    rows = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    enough = int(np.searchsorted(np.cumsum([len(one) for one in rows]), ENOUGH_HELD_OUT)) + 1
    return rows[: enough if at_most is None else min(enough, at_most)]


class Guides(NamedTuple):
    """Models that have read no noisy label, and what they predict for samples held out.

    Attributes
    ----------
    models : dict of str to list of fitted estimators
        ``trusted_only``, learned from the trusted samples; the ``teacher``, of one or several,
        learned from the augmented clean set; and, but for networks, what learns on from either
        one's own confident predictions, ``self_trained`` and ``self_trained_teacher``. If the
        filter found nothing, there is no teacher.
    held_out : dict of str to ndarray of shape (n_held_out, n_classes)
        Their predictions for the samples that the view holds out, not calibrated.
    """

    models: dict[str, list]
    held_out: dict[str, np.ndarray]

    def of(self, name: str) -> str:
        """Name who stands in for a guide that there may not be."""
        instead = {"teacher": "trusted_only", "self_trained_teacher": "self_trained"}
        return name if name in self.models else instead[name]


def train_guides(
    X: Any,
    verified: np.ndarray,
    clean_labels: np.ndarray,
    held_out: np.ndarray,
    n_classes: int,
    teacher: Any,
    student: Any,
    *,
    n_teachers: int | str,
    seed: int,
) -> Guides:
    """Train all that reads no noisy label; see `Guides`.

    Parameters
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    verified : ndarray of shape (n_samples,), int
        Codes of the trusted samples, -1 elsewhere.
    clean_labels : ndarray of shape (n_samples,), int
        The augmented clean set.
    held_out : ndarray, int
        Rows to predict.
    n_classes : int
        Number of classes.
    teacher, student : classifier
        What teachers are; what all other guides are, as the student.
    n_teachers : int or "auto"
        Teachers, each on the whole clean set, classes weighted alike; "auto": one.
    seed : int
        As for `train_teachers`.

    Returns
    -------
    guides : Guides
        The models and their predictions.
    """
    trusted_only = train_on_labels(student, X, verified, n_classes, seed)
    models = {"trusted_only": [trusted_only]}
    found_more = (clean_labels != MISSING).sum() > (verified != MISSING).sum()
    if found_more:
        models["teacher"] = train_teachers(
            teacher,
            X,
            clean_labels,
            n_classes,
            n_teachers=1 if n_teachers == "auto" else n_teachers,
            sample_weight=_evening_weights(verified, clean_labels, n_classes),
            seed=seed,
        )
    if not continues_training(student):
        learned = self_train(student, X, verified, n_classes, first=trusted_only, seed=seed)
        models["self_trained"] = [learned]
        if found_more:
            learned = self_train(student, X, clean_labels, n_classes, seed=seed)
            models["self_trained_teacher"] = [learned]
    proba = {name: average_proba(of, X, n_classes, held_out) for name, of in models.items()}
    return Guides(models, proba)


def train_on_labels(estimator: Any, X: Any, labels: np.ndarray, n_classes: int, seed: int) -> Any:
    """Train as a student on the samples that have a label; -1 means that one has none."""
    rows = np.flatnonzero(labels != MISSING)
    targets = one_hot(labels[rows], n_classes)
    some = None if len(rows) == _num_samples(X) else rows
    return train(Training(estimator, X, targets, rows=some, role="student", seed=seed))


def self_train(
    estimator: Any, X: Any, labels: np.ndarray, n_classes: int, *, first: Any = None, seed: int
) -> Any:
    """Learn labels, then those of the confident predictions too, and so on.

    scikit-learn's ``SelfTrainingClassifier`` does the same, but takes no data frames and no
    classifiers without ``predict_proba``.

    Parameters
    ----------
    estimator : classifier
        The learner.
    X : samples of shape (n_samples, ...)
        Samples.
    labels : ndarray of shape (n_samples,), int
        Labels to begin with, -1 for none.
    n_classes : int
        Number of classes.
    first : fitted estimator, default=None
        What has learned those labels, if it is there already.
    seed : int
        Decides the training.

    Returns
    -------
    model : fitted estimator
        The last one.
    """
    labels, model = labels.copy(), first
    for n in range(SELF_TRAININGS):
        if n > 0 or model is None:
            model = train_on_labels(estimator, X, labels, n_classes, seed)
        rest = np.flatnonzero(labels == MISSING)
        proba = predict_proba(model, X, n_classes, rest)
        sure = proba.max(axis=1, initial=0) >= CONFIDENT
        if not sure.any():
            break
        labels[rest[sure]] = proba.argmax(axis=1)[sure]
    return model


def _evening_weights(verified: np.ndarray, clean_labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Weigh the clean set so that classes have the shares that they have among trusted samples.

    The filter finds many samples of some classes and none of others.
    """
    known = clean_labels != MISSING
    found = np.bincount(clean_labels[known], minlength=n_classes)
    trusted = np.bincount(verified[verified != MISSING], minlength=n_classes)
    weight = trusted / np.maximum(found, 1) * found.sum() / trusted.sum()
    return np.where(known, weight[clean_labels], 0.0)


@dataclass(frozen=True)
class Blend:
    """How far each guide is believed, found on held-out trusted samples.

    Attributes
    ----------
    temperatures : dict of str to Temperature
        Calibrate the guides.
    weights : dict of str to float
        Their shares, which sum to 1; a guide that is hardly believed is left out.
    """

    temperatures: dict[str, Temperature]
    weights: dict[str, float]

    @classmethod
    def fit(cls, proba: dict[str, np.ndarray], known: np.ndarray) -> "Blend":
        """Fit on predictions of shape (n_held_out, n_classes); see `Temperature.fit`."""
        temperatures = {name: Temperature.fit(of, known) for name, of in proba.items()}
        calibrated = [temperatures[name].apply(of) for name, of in proba.items()]
        weights = without_small(mixture_weights(calibrated, known)).tolist()
        return cls(temperatures, dict(zip(proba, weights, strict=True)))

    def guess(self, guides: Guides, X: Any, n_classes: int) -> np.ndarray:
        """Blend the guides' predictions to probabilities of shape (n_samples, n_classes)."""

        def of(block: slice) -> np.ndarray:
            rows = np.arange(block.start, block.stop)
            predicted = {
                name: average_proba(guides.models[guides.of(name)], X, n_classes, rows)
                for name, weight in self.weights.items()
                if weight > 0
            }
            return self.blended(predicted)

        return computed(of, _num_samples(X))

    def blended(self, predicted: dict[str, np.ndarray]) -> np.ndarray:
        """Calibrate and blend predictions of the guides that are believed."""
        parts = [
            self.weights[name] * self.temperatures[name].apply(proba)
            for name, proba in predicted.items()
        ]
        return np.sum(parts, axis=0)

    def parts(self, guides: Guides) -> list[tuple[Any, float, Temperature]]:
        """List the guides' members, each with its share and what calibrates it."""
        return [
            (model, weight / len(guides.models[guides.of(name)]), self.temperatures[name])
            for name, weight in self.weights.items()
            for model in guides.models[guides.of(name)]
        ]


def without_small(weights: np.ndarray) -> np.ndarray:
    """Leave out who is hardly believed."""
    kept = np.where(weights < SMALLEST_SHARE, 0.0, weights)
    return kept / kept.sum()


class Lesson(NamedTuple):
    """What a student learned, and from what.

    Attributes
    ----------
    student : fitted estimator
        The student.
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions, of models that have not seen the sample's own label where the
        student was cross-fitted.
    targets : ndarray of shape (n_samples, n_classes)
        Posterior labels: those predictions combined with what is known of each label.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T` that they were combined with.
    temperature : Temperature
        What calibrates the student.
    n_rounds : int
        Rounds that it took.
    share : float in [0, 1]
        How far the student is believed beside the first guess.
    held_out : ndarray of shape (n_held_out, n_classes)
        Calibrated predictions of students for the samples that each further view holds out.
    """

    student: Any
    proba: np.ndarray
    targets: np.ndarray
    transition_matrix: np.ndarray
    temperature: Temperature
    n_rounds: int
    share: float
    held_out: np.ndarray


def learn(
    estimator: Any,
    X: Any,
    views: list[View],
    guesses: list[np.ndarray],
    *,
    transition_matrix: np.ndarray | None = None,
    originals: Originals | None = None,
    n_jobs: int | None = None,
    seed: int,
) -> Lesson:
    """Train a student on all samples with what is known of their labels.

    Parameters
    ----------
    estimator : classifier
        What the student is.
    X : samples of shape (n_samples, ...)
        Samples.
    views : list of View
        What is known of their labels; and the same with some trusted samples held out, on which
        students that go the same way are calibrated and judged.
    guesses : list of ndarray of shape (n_samples, n_classes)
        For each view a first, calibrated guess that has read no noisy label.
    transition_matrix : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; estimated by default.
    originals : Originals, default=None
        What trusted samples were called before they were verified.
    n_jobs : int, default=None
        Models trained at the same time.
    seed : int
        Decides the folds and the training.

    Returns
    -------
    lesson : Lesson
        The student of the first view and what it learned from.
    """

    def estimated(view: View, proba: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        if transition_matrix is not None:
            return transition_matrix
        rows = view.labelled
        T = fit_transition_matrix(take_rows(proba, rows), view.given[rows], start=start)
        # About the standard error, if the classes of the samples were known.
        return combine(T, np.sqrt(T * (1 - T) * len(T) / max(len(rows), 1)), originals)[0]

    if continues_training(estimator):
        return _learn_by_likelihood(estimator, X, views, guesses, estimated, n_jobs, seed)
    return _learn_in_rounds(estimator, X, views, guesses, estimated, n_jobs, seed)


class Round(NamedTuple):
    """Where a round of `_learn_in_rounds` ended.

    Attributes
    ----------
    learned_from : list of ndarray of shape (n_samples, n_classes), float32
        Posterior labels that its students learned, view by view.
    proba : ndarray of shape (n_samples, n_classes)
        What they, with the first guess, say of the samples.
    temperature : Temperature
        What calibrated them.
    share : float in [0, 1]
        How far they are believed beside the guess.
    held_out : ndarray of shape (n_held_out, n_classes)
        What they alone say of held-out samples.
    """

    learned_from: list[np.ndarray]
    proba: np.ndarray
    temperature: Temperature
    share: float
    held_out: np.ndarray


def _learn_in_rounds(
    estimator: Any,
    X: Any,
    views: list[View],
    guesses: list[np.ndarray],
    estimated: Callable[..., np.ndarray],
    n_jobs: int | None,
    seed: int,
) -> Lesson:
    """Run expectation-maximisation, for any learner: label, cross-fit, calibrate, estimate `T`.

    All views go through the rounds together. Their held-out samples calibrate each round's
    predictions, and say which round's students were best.
    """
    n_classes = guesses[0].shape[1]
    whole, truth = views[0], _held_out_truth(views, n_classes)
    folds = [folds_for(len(whole.given)), *[HELD_OUT_FOLDS] * (len(views) - 1)]
    T: np.ndarray | None = None
    probas, targets = guesses, [np.zeros(0)] * len(views)
    guessed = _held_out(guesses, views)
    rounds: list[Round] = []
    with stage("student", MAX_ROUNDS) as advance:
        for n in range(1, MAX_ROUNDS + 1):
            T = estimated(whole, probas[0], T)
            previous, targets = (
                targets,
                [
                    _informed(proba, T, view, _essential)
                    for view, proba in zip(views, probas, strict=True)
                ],
            )
            if rounds and _distance(targets[0], previous[0], whole) < SETTLED:
                break
            raw = _cross_fit(estimator, X, targets, folds, n_jobs, seed)
            if len(truth):
                temperature, share = _calibrate(_held_out(raw, views), guessed, truth)
            else:  # trusted samples calibrate, and the guess is forgotten
                known = one_hot(whole.verified[whole.trusted], n_classes)
                temperature, share = Temperature.fit(raw[0][whole.trusted], known), 1.0
            probas = [
                _believed(proba, guess, temperature, share)
                for proba, guess in zip(raw, guesses, strict=True)
            ]
            held_out = temperature.apply(_held_out(raw, views))
            learned_from = [
                rowwise(lambda of: of.astype(np.float32), learned) for learned in targets
            ]
            rounds.append(Round(learned_from, probas[0], temperature, share, held_out))
            advance(1, detail=f"round {n}")
        advance(to=MAX_ROUNDS)
    n_rounds = best_round([one.held_out for one in rounds], truth)
    best = rounds[n_rounds - 1]
    T = estimated(whole, best.proba, T)
    tasks = (
        _without_held_out(estimator, X, view, rowwise(lambda of: of.astype(float), learned), seed)
        for view, learned in zip(views, best.learned_from, strict=True)
    )
    students = list(train_all(tasks, n_jobs))
    judged = [best.held_out[:0]]  # by students of all samples, as the one that is shipped
    for student, view in zip(students[1:], views[1:], strict=True):
        judged.append(predict_proba(student, X, n_classes, view.held_out))
    held_out = np.concatenate(judged)
    temperature, share = best.temperature, best.share
    if len(truth):  # a learner may give other probabilities than its cross-fitted copies
        temperature, share = _calibrate(held_out, guessed, truth)
    return Lesson(
        students[0],
        best.proba,
        _informed(best.proba, T, whole),
        T,
        temperature,
        n_rounds,
        share,
        temperature.apply(held_out),
    )


def _without_held_out(
    estimator: Any, X: Any, view: View, targets: np.ndarray, seed: int
) -> Training:
    """Say what the student of a view learns: nothing about those that it is judged on."""
    rows = None
    if len(view.held_out):
        rows = np.setdiff1d(np.arange(len(targets)), view.held_out)
        targets = take_rows(targets, rows)
    return Training(estimator, X, targets, rows=rows, role="student", seed=seed)


def _cross_fit(
    estimator: Any,
    X: Any,
    targets: list[np.ndarray],
    folds: list[int],
    n_jobs: int | None,
    seed: int,
) -> list[np.ndarray]:
    """Cross-fit every view: side by side, or, where there is one only, its folds."""
    outer, inner = (1, n_jobs) if len(targets) == 1 else (n_jobs, 1)
    tasks = (
        delayed(cross_fit_proba)(estimator, X, learned, n_folds=n_folds, n_jobs=inner, seed=seed)
        for learned, n_folds in zip(targets, folds, strict=True)
    )
    return list(rows_in_order(list(tasks), outer, targets[0].shape))


def _informed(
    proba: np.ndarray,
    T: np.ndarray,
    view: View,
    then: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Combine predictions with what is known of each label."""
    return rowwise(
        lambda p, given, verified: then(posterior(p, likelihood(T, given, verified))),
        proba,
        view.given,
        view.verified,
    )


def _believed(
    student: np.ndarray, guess: np.ndarray, temperature: Temperature, share: float
) -> np.ndarray:
    """Calibrate a student, and believe it so far beside the first guess."""
    return rowwise(lambda p, q: share * temperature.apply(p) + (1 - share) * q, student, guess)


def _calibrate(
    student: np.ndarray, guess: np.ndarray, truth: np.ndarray
) -> tuple[Temperature, float]:
    """Say how sure a student may be, and how far it is believed beside the first guess."""
    temperature = Temperature.fit(student, truth)
    return temperature, mixture_weights([guess, temperature.apply(student)], truth)[1]


def best_round(held_out: list[np.ndarray], truth: np.ndarray) -> int:
    """Choose the round to stop at: the last that is as good as the best, by what can be told.

    Where noise depends on more than the class, later rounds may explain wrong labels by wrong
    classes.

    Parameters
    ----------
    held_out : list of ndarray of shape (n_held_out, n_classes)
        Each round's predictions for held-out samples.
    truth : ndarray of shape (n_held_out, n_classes)
        Their verified labels, one-hot.

    Returns
    -------
    n_rounds : int
        From 1. A round is worse than another if its log-likelihood is by more than one standard
        error of the difference.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.noise_aware import best_round
    >>> truth = np.eye(2)[np.arange(100) % 2]
    >>> best_round([0.8 * truth + 0.1, 0.6 * truth + 0.2], truth)
    1
    """
    if len(truth) == 0:
        return len(held_out)
    scores = np.array([log_likelihood(proba, truth) for proba in held_out])
    loss = scores[scores.mean(axis=1).argmax()] - scores
    as_good = loss.mean(axis=1) <= loss.std(axis=1) / np.sqrt(len(truth))
    return int(np.flatnonzero(as_good)[-1]) + 1


def _held_out(predictions: list[np.ndarray], views: list[View]) -> np.ndarray:
    """Collect what the model of each further view says of the samples that it holds out."""
    parts = [proba[view.held_out] for proba, view in zip(predictions, views, strict=True)]
    return np.concatenate(parts)


def _held_out_truth(views: list[View], n_classes: int) -> np.ndarray:
    codes = np.concatenate([views[0].verified[view.held_out] for view in views])
    return one_hot(codes, n_classes)


def _learn_by_likelihood(
    estimator: Any,
    X: Any,
    views: list[View],
    guesses: list[np.ndarray],
    estimated: Callable[..., np.ndarray],
    n_jobs: int | None,
    seed: int,
) -> Lesson:
    """Train a network on the likelihood of what is known: it is its own teacher, batch by batch.

    A first pair of networks, each blind to the given labels of one half of the samples, says what
    these are with no regard to how they are labelled; from that comes the final one's `T`.
    """
    whole, n_classes = views[0], guesses[0].shape[1]
    T = estimated(whole, guesses[0])
    half = np.random.default_rng(seed).integers(2, size=len(whole.given))
    hidden = [np.flatnonzero((half == n) & (whole.verified == MISSING)) for n in range(2)]
    scouts = [*(whole.holding_out(rows, None) for rows in hidden), *views[1:]]
    with stage("student", len(scouts) + 1) as advance:
        tasks = (likelihood_training(estimator, X, view, T, seed) for view in scouts)
        predictions = []
        for network in train_all(tasks, n_jobs):
            predictions.append(predict_proba(network, X, n_classes))
            advance(1)
        blind = rowwise(lambda n, *p: np.where(n[:, None] == 0, *p), half, *predictions[:2])
        truth, temperature, share = _held_out_truth(views, n_classes), Temperature(), 1.0
        held_out = _held_out([blind, *predictions[2:]], views)
        if len(truth):
            temperature, share = _calibrate(held_out, _held_out(guesses, views), truth)
        proba = _believed(blind, guesses[0], temperature, share)
        T = estimated(whole, proba, T)
        student = train(likelihood_training(estimator, X, whole, T, seed))
        advance(1)
    targets = _informed(proba, T, whole)
    return Lesson(student, proba, targets, T, temperature, 1, share, temperature.apply(held_out))


def likelihood_training(estimator: Any, X: Any, view: View, T: np.ndarray, seed: int) -> Training:
    """Say what a network learns: how likely what is known of each label is in each class.

    Parameters
    ----------
    estimator : network
        As `TorchClassifier`.
    X : samples of shape (n_samples, ...)
        Samples.
    view : View
        What is known of their labels; of those that it holds out, nothing.
    T : ndarray of shape (n_classes, n_classes)
        Transition matrix.
    seed : int
        Decides the training.

    Returns
    -------
    training : Training
        What to train.
    """
    known = rowwise(lambda *of: likelihood(T, *of), view.given, view.verified)
    known[view.held_out] = 1.0
    params = {"loss": "likelihood", "mixup": 0.0}
    return Training(estimator, X, known, role="noise_aware", seed=seed, params=params)


def find_originals(
    labels: Labels, view: View, guess: np.ndarray
) -> tuple[Originals | None, str | None]:
    """See `known_originals`; the rate that they must be plausible beside comes from the guess."""
    rows = np.flatnonzero(labels.trusted)
    given = view.given[view.labelled]
    rate = 0.0
    if len(given):
        known = take_rows(guess, view.labelled)
        T = fit_transition_matrix(known, given)
        rate = float(1 - rowwise(lambda *of: _believed_given(T, *of), known, given).mean())
    return known_originals(
        labels.verified[rows], labels.given[rows], rate, from_mask=labels.from_mask
    )


def _believed_given(T: np.ndarray, guess: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Say how likely it is that each given label is right."""
    return posterior(guess, likelihood(T, given))[np.arange(len(given)), given]


def folds_for(n_samples: int) -> int:
    """Choose the number of folds for cross-fitted predictions."""
    return next(folds for size, folds in FOLDS_BY_SIZE if n_samples <= size)


def _essential(targets: np.ndarray) -> np.ndarray:
    kept = np.where(targets >= NEGLIGIBLE * targets.max(axis=1, keepdims=True), targets, 0.0)
    return kept / kept.sum(axis=1, keepdims=True)


def _distance(targets: np.ndarray, previous: np.ndarray, view: View) -> float:
    """Mean total variation over the samples that are not trusted."""
    rows = view.verified == MISSING
    moved = rowwise(lambda new, old: np.abs(new - old).sum(axis=1), targets, previous)
    return float(moved[rows].mean() / 2) if rows.any() else 0


def given_labels_model(estimator: Any, X: Any, view: View, n_classes: int, *, seed: int) -> Any:
    """Train on the labels as they are: verified where trusted, else given.

    Parameters
    ----------
    estimator : classifier
        The learner.
    X : samples of shape (n_samples, ...)
        Samples.
    view : View
        What is known of their labels.
    n_classes : int
        Number of classes.
    seed : int
        Decides the training.

    Returns
    -------
    model : fitted estimator
        The model.
    """
    labels = np.where(view.verified == MISSING, view.given, view.verified)
    return train_on_labels(estimator, X, labels, n_classes, seed)


@dataclass(frozen=True)
class Preparation:
    """All that reads no noisy label, for the whole data and with each fold held out.

    Attributes
    ----------
    views : list of View
        The whole data first, then a view per held-out fold.
    guides : list of Guides
        Of each view.
    blend : Blend
        Of the guides, found on all held-out samples.
    guesses : list of ndarray of shape (n_samples, n_classes)
        What the blend says of all samples, of each view.
    """

    views: list[View]
    guides: list[Guides]
    blend: Blend
    guesses: list[np.ndarray]


def prepare(
    X: Any,
    labels: Labels,
    clean_labels: np.ndarray,
    team_labels: np.ndarray,
    folds: np.ndarray,
    teacher: Any,
    student: Any,
    *,
    n_teachers: int | str,
    compare: bool,
    n_jobs: int | None,
    seed: int,
) -> Preparation:
    """Train the guides of the whole data and of each view with a fold held out.

    Parameters
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    labels : Labels
        What is known of their labels; no given label of a noisy sample is read.
    clean_labels : ndarray of shape (n_samples,), int
        The augmented clean set.
    team_labels : ndarray of shape (n_folds, n_samples), int
        The same, found without a fold of the trusted samples.
    folds : ndarray of shape (n_samples,), int
        Fold of each trusted sample; -1 for all others.
    teacher, student : classifier
        What the teachers and the student are.
    n_teachers : int or "auto"
        Number of teachers.
    compare : bool
        Whether to hold trusted samples out; without, guides are believed alike and uncalibrated.
    n_jobs, seed : int
        Models trained at the same time; what decides the training.

    Returns
    -------
    preparation : Preparation
        Views, guides, their blend and what it says.
    """
    whole = whole_view(labels)
    # Networks take long enough to train for one fold.
    at_most = 1 if continues_training(student) else None
    held_out = held_out_rows(folds, at_most=at_most) if compare else []
    # Whether originals are to be believed is found out when given labels are read.
    views = [whole, *(whole.holding_out(rows, None) for rows in held_out)]
    guided = kept(train_guides)
    with stage("guides", len(views)) as advance:
        tasks = (
            delayed(guided)(
                X,
                view.verified,
                clean,
                view.held_out,
                labels.n_classes,
                teacher,
                student,
                n_teachers=n_teachers,
                seed=seed,
            )
            for view, clean in zip(views, [clean_labels, *team_labels], strict=False)
        )
        guides = []
        for guide in in_order(tasks, n_jobs):
            guides.append(guide)
            advance(1)
    truth = _held_out_truth(views, labels.n_classes)
    judged = {name: _of_guides(name, guides) for name in guides[0].models}
    blend = Blend.fit(judged, truth)
    guessing = [delayed(blend.guess)(guide, X, labels.n_classes) for guide in guides]
    guesses = rows_in_order(guessing, n_jobs, (_num_samples(X), labels.n_classes))
    return Preparation(views, guides, blend, list(guesses))


def _of_guides(name: str, guides: list[Guides]) -> np.ndarray:
    """Collect what a guide says of the samples that its view holds out."""
    return np.concatenate([one.held_out[one.of(name)] for one in guides])


@dataclass(frozen=True)
class Shares:
    """How far each prediction is believed in the mixture, found on held-out trusted samples.

    Attributes
    ----------
    guess, student, given_labels : float in [0, 1]
        Shares of the first guess, the student and training on the given labels; they sum to 1.
    given_temperature : Temperature
        Calibrates the last one.
    """

    guess: float
    student: float
    given_labels: float
    given_temperature: Temperature

    @classmethod
    def fit(
        cls, guess: np.ndarray, student: np.ndarray, given: np.ndarray, truth: np.ndarray
    ) -> "Shares":
        """Fit on predictions of shape (n_held_out, n_classes), the first two calibrated."""
        if len(truth) == 0:
            return cls(0.0, 1.0, 0.0, Temperature())
        temperature = Temperature.fit(given, truth)
        predictions = [guess, student, temperature.apply(given)]
        lead = log_likelihood(predictions[1], truth) - log_likelihood(predictions[2], truth)
        if lead.mean() > lead.std() / np.sqrt(len(truth)):
            # A student that is clearly better has learned all that the given labels can tell.
            weights = np.append(mixture_weights(predictions[:2], truth), 0.0)
        else:
            weights = mixture_weights(predictions, truth, PRIOR_OF_MIXTURE)
        of_guess, of_student, of_given = without_small(weights).tolist()
        return cls(of_guess, of_student, of_given, temperature)

    def mix(self, guess: np.ndarray, student: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Mix predictions of shape (n_samples, n_classes)."""
        given = self.given_temperature.apply(given)
        return self.guess * guess + self.student * student + self.given_labels * given


class Outcome(NamedTuple):
    """What a student learned, how noisy the labels are, and what is shipped.

    Attributes
    ----------
    lesson : Lesson
        The student's.
    noise : NoiseEstimate
        How noisy the given labels are.
    comparison : Comparison
        Which candidate is best.
    model : fitted estimator
        The one that is shipped.
    adapted : dict of str to float
        What became of the quantities that adapt to the data.
    """

    lesson: Lesson
    noise: NoiseEstimate
    comparison: Comparison
    model: Any
    adapted: dict[str, float]


def learn_and_compare(
    X: Any,
    labels: Labels,
    ready: Preparation,
    student: Any,
    *,
    transition_matrix: np.ndarray | None,
    n_jobs: int | None,
    seed: int,
) -> Outcome:
    """Train the student, judge all candidates on held-out samples, and decide what to ship.

    Parameters
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    labels : Labels
        What is known of their labels.
    ready : Preparation
        As from `prepare`.
    student : classifier
        What the student is.
    transition_matrix : ndarray of shape (n_classes, n_classes) or None
        `T`, if it is known.
    n_jobs, seed : int
        Models trained at the same time; what decides the training.

    Returns
    -------
    outcome : Outcome
        The student, the noise and the decision.
    """
    whole = whole_view(labels)
    guesses = ready.guesses
    originals, warning = find_originals(labels, whole, guesses[0])
    views = [whole] + [
        whole.holding_out(view.held_out, labels.given if originals else None)
        for view in ready.views[1:]
    ]
    lesson = learn(
        student,
        X,
        views,
        guesses,
        transition_matrix=transition_matrix,
        originals=originals,
        n_jobs=n_jobs,
        seed=seed,
    )
    # Without the given labels of held-out samples, which new samples do not have either.
    models = (
        delayed(given_labels_model)(
            student, X, whole.holding_out(view.held_out, None), labels.n_classes, seed=seed
        )
        for view in views[1:]
    )
    parts = [lesson.held_out[:0]]
    with stage("comparison", len(views) - 1) as advance:
        for view, model in zip(views[1:], in_order(models, n_jobs), strict=True):
            parts.append(predict_proba(model, X, labels.n_classes, view.held_out))
            advance(1)
    truth, guessed = _held_out_truth(views, labels.n_classes), _held_out(guesses, views)
    given = np.concatenate(parts)
    shares = Shares.fit(guessed, lesson.held_out, given, truth)
    candidates = {
        "trusted_only": _of_guides("trusted_only", ready.guides),
        "given_labels": given,
        "teacher": _of_guides("teacher", ready.guides),
        "student": lesson.held_out,
    }
    if shares.student < 1:
        candidates["mixture"] = shares.mix(guessed, lesson.held_out, given)
    comparison = compare(candidates, truth.argmax(axis=1), seed=seed)
    if silent := unjudged(labels.classes, truth.argmax(axis=1)):
        warn_user(silent, TrustedWarning)
        comparison = replace(comparison, why=f"{comparison.why} {silent}")
    rows = whole.labelled
    noise = estimate_noise(
        labels.classes,
        take_rows(lesson.proba, rows),
        whole.given[rows],
        originals,
        lesson.temperature,
        notes=[] if warning is None else [warning],
        seed=seed,
    )
    given_model = None
    if comparison.shipped == "given_labels" or (
        comparison.shipped == "mixture" and shares.given_labels
    ):
        given_model = given_labels_model(student, X, whole, labels.n_classes, seed=seed)
    model = _candidate(comparison.shipped, ready, lesson, shares, given_model)
    blend = ready.blend
    adapted = {
        "rounds": lesson.n_rounds,
        "student_share": shares.student,
        "given_labels_share": shares.given_labels,
        **{f"{name}_share_of_guess": weight for name, weight in blend.weights.items()},
        "sharpness_of_student": lesson.temperature.sharpness,
        **{f"sharpness_of_{name}": found.sharpness for name, found in blend.temperatures.items()},
        "held_out_trusted_samples": sum(len(view.held_out) for view in views),
    }
    return Outcome(lesson, noise, comparison, model, adapted)


def _candidate(
    name: str, ready: Preparation, lesson: Lesson, shares: Shares, given_model: Any
) -> Any:
    if name == "student":
        return lesson.student
    if name == "given_labels":
        return given_model
    guides = ready.guides[0]
    if name == "trusted_only" or (name == "teacher" and "teacher" not in guides.models):
        return guides.models["trusted_only"][0]
    if name == "teacher":
        temperature = ready.blend.temperatures["teacher"]
        parts = Blend({"teacher": temperature}, {"teacher": 1.0}).parts(guides)
    else:
        parts = [
            *((model, shares.guess * share, t) for model, share, t in ready.blend.parts(guides)),
            (lesson.student, shares.student, lesson.temperature),
            (given_model, shares.given_labels, shares.given_temperature),
        ]
    members, weights, temperatures = zip(*(part for part in parts if part[1] > 0), strict=True)
    n_classes = lesson.proba.shape[1]
    return Mixture(list(members), list(weights), list(temperatures), n_classes)
