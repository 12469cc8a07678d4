"""Training that knows the noise: every given label is used, with one setting for all levels.

What reads no noisy label comes first: a model of the trusted samples and the teachers, blended
into a first guess (`prepare`). Then given labels and guesses are combined by Bayes' rule, a student
learns from the result, and its predictions replace the guess; this repeats (`learn`). A network
does the same within one training, as a loss. At last candidates are compared on held-out trusted
samples (`learn_and_compare`).
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from pudistill.calibration import Temperature
from pudistill.comparison import Comparison, compare
from pudistill.distillation import Average, average_proba, train_teachers
from pudistill.learners import (
    Training,
    continues_training,
    cross_fit_proba,
    predict_proba,
    train,
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
from pudistill.validation import MISSING, Labels

MAX_ROUNDS = 6
# Rounds end when the posteriors of noisy samples move by less than this, in total variation.
SETTLED = 0.01
# A class with less than this share of the likeliest one's posterior is left out of it: it costs
# a weighted copy of the sample in every fit, and says next to nothing.
NEGLIGIBLE = float(__import__("os").environ.get("NEG", 0.03))
# Samples up to which predictions are cross-fitted in so many folds: the fewer samples, the more a
# model misses those that are left out.
FOLDS_BY_SIZE = ((5_000, 5), (20_000, 3), (np.inf, 2))
# Enough held-out trusted samples to tell candidates apart; more cost time and tell little more.
ENOUGH_HELD_OUT = 500
CANDIDATES = ("trusted_only", "given_labels", "teacher", "student")


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


@dataclass(frozen=True)
class Guides:
    """Models that have read no noisy label, and what they predict for all samples.

    Attributes
    ----------
    trusted_only : fitted estimator
        Learned from the trusted samples.
    teachers : list of fitted estimators
        Learned from the augmented clean set; empty if that holds nothing but the trusted samples.
    trusted_proba, teacher_proba : ndarray of shape (n_samples, n_classes)
        Their predictions, not calibrated.
    """

    trusted_only: Any
    teachers: list
    trusted_proba: np.ndarray
    teacher_proba: np.ndarray


def train_guides(
    X: Any,
    view: View,
    clean_labels: np.ndarray,
    n_classes: int,
    teacher: Any,
    student: Any,
    *,
    n_teachers: int | str,
    n_jobs: int | None,
    seed: int,
) -> Guides:
    """Train a model of the trusted samples, and teachers on the augmented clean set.

    Parameters
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    view : View
        Which samples are trusted.
    clean_labels : ndarray of shape (n_samples,), int
        The augmented clean set.
    n_classes : int
        Number of classes.
    teacher, student : classifier
        What teachers are; what the model of the trusted samples is, as the student.
    n_teachers : int or "auto"
        Teachers, each on the whole clean set, classes weighted alike; "auto": one.
    n_jobs, seed : int
        As for `train_teachers`.

    Returns
    -------
    guides : Guides
        The models and their predictions.
    """
    rows = view.trusted
    trusted_only = train(
        Training(
            student,
            _safe_indexing(X, rows),
            one_hot(view.verified[rows], n_classes),
            role="student",
            seed=seed,
        )
    )
    trusted_proba = predict_proba(trusted_only, X, n_classes)
    if (clean_labels != MISSING).sum() == len(rows):  # the filter found nothing
        return Guides(trusted_only, [], trusted_proba, trusted_proba)
    teachers = train_teachers(
        teacher,
        X,
        clean_labels,
        n_classes,
        n_teachers=1 if n_teachers == "auto" else n_teachers,
        sample_weight=_evening_weights(view.verified, clean_labels, n_classes),
        n_jobs=n_jobs,
        seed=seed,
    )
    return Guides(trusted_only, teachers, trusted_proba, average_proba(teachers, X, n_classes))


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
    trusted, teacher : Temperature
        Calibrate the guides.
    weight : float in [0, 1]
        The teachers' share.
    """

    trusted: Temperature
    teacher: Temperature
    weight: float

    @classmethod
    def fit(cls, trusted: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> "Blend":
        """Fit on predictions of shape (n_held_out, n_classes) for samples of known `labels`.

        The weight maximises the likelihood, as if one sample more had spoken for either guide.
        """
        if len(labels) == 0:
            return UNKNOWN_BLEND
        blend = cls(Temperature.fit(trusted, labels), Temperature.fit(teacher, labels), 0.5)
        rows = np.arange(len(labels))
        p = blend.trusted.apply(trusted)[rows, labels]
        q = blend.teacher.apply(teacher)[rows, labels]
        weight = 0.5
        for _ in range(50):
            share = weight * q / (weight * q + (1 - weight) * p + 1e-12)
            weight = (share.sum() + 1) / (len(share) + 2)
        return replace(blend, weight=float(weight))

    def guess(self, guides: Guides) -> np.ndarray:
        """Blend the guides' predictions to probabilities of shape (n_samples, n_classes)."""
        teacher = self.teacher.apply(guides.teacher_proba)
        return self.weight * teacher + (1 - self.weight) * self.trusted.apply(guides.trusted_proba)


UNKNOWN_BLEND = Blend(Temperature(), Temperature(), 0.5)


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
        Posterior labels: the last guess combined with what is known of each label.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T` that they were combined with.
    temperature : Temperature
        What calibrated `proba`.
    n_rounds : int
        Rounds that it took.
    """

    student: Any
    proba: np.ndarray
    targets: np.ndarray
    transition_matrix: np.ndarray
    temperature: Temperature
    n_rounds: int


def learn(
    estimator: Any,
    X: Any,
    view: View,
    guess: np.ndarray,
    *,
    transition_matrix: np.ndarray | None = None,
    originals: Originals | None = None,
    consistency: bool = True,
    n_folds: int | None = None,
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
    view : View
        What is known of their labels.
    guess : ndarray of shape (n_samples, n_classes)
        A first, calibrated guess that has read no noisy label.
    transition_matrix : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; estimated by default.
    originals : Originals, default=None
        What trusted samples were called before they were verified.
    consistency : bool, default=True
        Whether a network of pictures also learns to see through strong augmentation, where its
        recipe says so.
    n_folds : int, default=None
        Folds in which predictions are cross-fitted; by default from the number of samples.
    n_jobs : int, default=None
        Models trained at the same time.
    seed : int
        Decides the folds and the training.

    Returns
    -------
    lesson : Lesson
        The student and what it learned from.
    """
    if continues_training(estimator):
        params = {"loss": "likelihood"} | ({} if consistency else {"consistency_weight": 0.0})
        return _learn_by_likelihood(
            estimator, X, view, guess, transition_matrix, originals, params, seed
        )
    return _learn_in_rounds(
        estimator, X, view, guess, transition_matrix, originals, n_folds, n_jobs, seed
    )


def _learn_in_rounds(
    estimator: Any,
    X: Any,
    view: View,
    guess: np.ndarray,
    transition_matrix: np.ndarray | None,
    originals: Originals | None,
    n_folds: int | None,
    n_jobs: int | None,
    seed: int,
) -> Lesson:
    """Run expectation-maximisation, for any learner: label, cross-fit, calibrate, estimate `T`."""
    n_classes = guess.shape[1]
    trusted, labelled = view.trusted, view.labelled
    folds = n_folds or folds_for(len(guess))
    temperature = Temperature()
    # Folds are stratified by what is known for certain.
    strata = np.where(view.verified == MISSING, n_classes, view.verified)
    proba, T, targets = guess, transition_matrix, None
    with stage("student", MAX_ROUNDS) as advance:
        for n_rounds in range(1, MAX_ROUNDS + 1):
            if transition_matrix is None:
                T = _estimate(proba[labelled], view.given[labelled], originals, start=T)
            assert T is not None
            previous = targets
            targets = _essential(posterior(proba, likelihood(T, view.given, view.verified)))
            if previous is not None and _distance(targets, previous, view) < SETTLED:
                break
            proba = cross_fit_proba(
                estimator, X, targets, strata, n_folds=folds, n_jobs=n_jobs, seed=seed
            )
            temperature = Temperature.fit(proba[trusted], view.verified[trusted])
            proba = temperature.apply(proba)
            advance(1, detail=f"round {n_rounds}")
        advance(to=MAX_ROUNDS)
    if transition_matrix is None:
        T = _estimate(proba[labelled], view.given[labelled], originals, start=T)
    targets = _essential(posterior(proba, likelihood(T, view.given, view.verified)))
    student = train(Training(estimator, X, targets, role="student", seed=seed))
    return Lesson(student, proba, targets, T, temperature, n_rounds)


def _learn_by_likelihood(
    estimator: Any,
    X: Any,
    view: View,
    guess: np.ndarray,
    transition_matrix: np.ndarray | None,
    originals: Originals | None,
    params: dict[str, Any],
    seed: int,
) -> Lesson:
    """Train a network on the likelihood of what is known: it is its own teacher, batch by batch."""
    n_classes = guess.shape[1]
    labelled = view.labelled
    T = transition_matrix
    if T is None:
        T = _estimate(guess[labelled], view.given[labelled], originals, start=None)
    known = likelihood(T, view.given, view.verified)
    task = Training(estimator, X, known, role="noise_aware", seed=seed, params=params)
    student = train(task)
    proba = predict_proba(student, X, n_classes)
    return Lesson(student, proba, posterior(proba, known), T, Temperature(), 1)


def _estimate(
    proba: np.ndarray, given: np.ndarray, originals: Originals | None, start: np.ndarray | None
) -> np.ndarray:
    T = fit_transition_matrix(proba, given, start=start)
    return combine(T, np.zeros_like(T), originals)[0]


def find_originals(
    labels: Labels, view: View, guess: np.ndarray
) -> tuple[Originals | None, str | None]:
    """See `known_originals`; the rate that they must be plausible beside comes from the guess."""
    rows = np.flatnonzero(labels.trusted)
    given = view.given[view.labelled]
    rate = 0.0
    if len(given):
        T = fit_transition_matrix(guess[view.labelled], given)
        q = posterior(guess[view.labelled], likelihood(T, given))
        rate = float(1 - q[np.arange(len(given)), given].mean())
    return known_originals(
        labels.verified[rows], labels.given[rows], rate, from_mask=labels.from_mask
    )


def folds_for(n_samples: int) -> int:
    """Choose the number of folds for cross-fitted predictions."""
    return next(folds for size, folds in FOLDS_BY_SIZE if n_samples <= size)


def _essential(targets: np.ndarray) -> np.ndarray:
    kept = np.where(targets >= NEGLIGIBLE * targets.max(axis=1, keepdims=True), targets, 0.0)
    return kept / kept.sum(axis=1, keepdims=True)


def _distance(targets: np.ndarray, previous: np.ndarray, view: View) -> float:
    """Mean total variation over the samples that are not trusted."""
    rows = view.verified == MISSING
    return float(np.abs(targets[rows] - previous[rows]).sum(axis=1).mean() / 2) if rows.any() else 0


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
    rows = np.flatnonzero(labels != MISSING)
    X_known = X if len(rows) == _num_samples(X) else _safe_indexing(X, rows)
    return train(
        Training(estimator, X_known, one_hot(labels[rows], n_classes), role="student", seed=seed)
    )


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
    """

    views: list[View]
    guides: list[Guides]
    blend: Blend

    def held_out(self, predictions: list[np.ndarray]) -> np.ndarray:
        """Collect what each view's model says of its held-out samples.

        Parameters
        ----------
        predictions : list of ndarray of shape (n_samples, n_classes)
            One for each view but the whole.

        Returns
        -------
        proba : ndarray of shape (n_held_out, n_classes)
            Predictions in the order of the views.
        """
        parts = [p[view.held_out] for view, p in zip(self.views[1:], predictions, strict=True)]
        return np.concatenate(parts) if parts else np.zeros((0, 0))

    def labels(self) -> np.ndarray:
        """Verified labels of the held-out samples, in the same order."""
        whole = self.views[0].verified
        return np.concatenate([np.arange(0), *(whole[view.held_out] for view in self.views[1:])])


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
        Views, guides and their blend.
    """
    whole = whole_view(labels)
    # Networks take long enough to train for one fold.
    at_most = 1 if continues_training(student) else None
    held_out = held_out_rows(folds, at_most=at_most) if compare else []
    # Before the noise is known nobody can say whether originals are to be believed: see `learn_all`.
    views = [whole, *(whole.holding_out(rows, None) for rows in held_out)]
    with stage("guides", len(views)) as advance:
        guides = []
        for view, clean in zip(views, [clean_labels, *team_labels], strict=False):
            guides.append(
                train_guides(
                    X,
                    view,
                    clean,
                    labels.n_classes,
                    teacher,
                    student,
                    n_teachers=n_teachers,
                    n_jobs=n_jobs,
                    seed=seed,
                )
            )
            advance(1)
    ready = Preparation(views, guides, UNKNOWN_BLEND)
    if not held_out:
        return ready
    trusted = ready.held_out([one.trusted_proba for one in guides[1:]])
    teachers = ready.held_out([one.teacher_proba for one in guides[1:]])
    return replace(ready, blend=Blend.fit(trusted, teachers, ready.labels()))


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
    """

    lesson: Lesson
    noise: NoiseEstimate
    comparison: Comparison
    model: Any


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
    guess = ready.blend.guess(ready.guides[0])
    originals, warning = find_originals(labels, whole, guess)
    lesson = learn(
        student,
        X,
        whole,
        guess,
        transition_matrix=transition_matrix,
        originals=originals,
        n_jobs=n_jobs,
        seed=seed,
    )
    predictions: dict[str, list[np.ndarray]] = {name: [] for name in CANDIDATES}
    n_views = len(ready.views) - 1
    with stage("comparison", n_views) as advance:
        for held_out, guides in zip(ready.views[1:], ready.guides[1:], strict=True):
            view = whole.holding_out(held_out.held_out, labels.given if originals else None)
            again = learn(
                student,
                X,
                view,
                ready.blend.guess(guides),
                transition_matrix=lesson.transition_matrix,
                n_folds=max(2, folds_for(len(guess)) - 2),
                n_jobs=n_jobs,
                seed=seed,
            )
            given = given_labels_model(student, X, view, labels.n_classes, seed=seed)
            predictions["trusted_only"].append(guides.trusted_proba)
            predictions["teacher"].append(guides.teacher_proba)
            for name, model in (("given_labels", given), ("student", again.student)):
                proba = np.zeros_like(guess)
                rows = view.held_out
                proba[rows] = predict_proba(model, X, labels.n_classes, rows)
                predictions[name].append(proba)
            advance(1)
    comparison = compare(
        {name: ready.held_out(predictions[name]) for name in CANDIDATES},
        ready.labels(),
        seed=seed,
    )
    rows = whole.labelled
    noise = estimate_noise(
        labels.classes,
        lesson.proba[rows],
        whole.given[rows],
        lesson.transition_matrix,
        originals,
        lesson.temperature,
        notes=() if warning is None else (warning,),
        seed=seed,
    )
    return Outcome(
        lesson,
        noise,
        comparison,
        _shipped(comparison, X, whole, ready, lesson, student, labels, seed),
    )


def _shipped(
    comparison: Comparison,
    X: Any,
    whole: View,
    ready: Preparation,
    lesson: Lesson,
    student: Any,
    labels: Labels,
    seed: int,
) -> Any:
    if comparison.shipped == "given_labels":
        return given_labels_model(student, X, whole, labels.n_classes, seed=seed)
    guides = ready.guides[0]
    if comparison.shipped == "teacher" and guides.teachers:
        return Average(guides.teachers, labels.n_classes)
    return guides.trusted_only if comparison.shipped != "student" else lesson.student
