"""The default method: every given label is used, with one setting for all noise levels.

`run_noise_free_stage` trains all models that read no noisy label, and mixes them into a first
guess. `learn_and_ship` then combines given labels and predictions by Bayes' rule, trains a student
on the result, estimates the noise, and compares all candidates on held-out trusted samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from pudistill.pseudo_labels import bayes_rule, likelihood, one_hot
from pudistill.rowwise import computed, rowwise, take_rows
from pudistill.units import kept
from pudistill.validation import MISSING, Labels

MAX_ROUNDS = 6
# Rounds end when the posteriors of noisy samples move by less than this, in total variation.
SETTLED = 0.01
# A class whose posterior is below this share of the likeliest class's is left out: it would cost a
# weighted copy of the sample in every fit, and says next to nothing.
NEGLIGIBLE = 0.1
# Largest number of samples for each number of folds in cross-fitting: the fewer samples there are,
# the more a model misses those that are left out.
FOLDS_BY_SIZE = ((5_000, 5), (20_000, 3), (np.inf, 2))
# Folds in views that hold samples out: these only judge the method.
HELD_OUT_FOLDS = 2
# Held-out trusted samples that suffice to tell candidates apart; more cost time and add little.
ENOUGH_HELD_OUT = 400
# Predictions with a smaller weight are left out of a mixture.
SMALLEST_WEIGHT = 0.05
# Prior of the weights of first guess, student and given labels, as a number of samples that speak
# for each. The student has learned from all that the others know: where it is worse than training
# on given labels, the transition matrix is wrong, which is rare.
PRIOR_OF_MIXTURE = (1.0, 3.0, 1.0)
# Self-training takes predictions from this probability on for labels, at most this often: the
# defaults of scikit-learn's SelfTrainingClassifier.
CONFIDENT, SELF_TRAININGS = 0.75, 10
# The model that stands in for another one where the filter found no sample.
REPLACEMENTS = {"teacher": "trusted_only", "self_trained_teacher": "self_trained"}


@dataclass(frozen=True)
class Problem:
    """Samples, labels and learner, which all steps of the method need.

    Attributes
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    labels : Labels
        Given and verified labels.
    student : classifier
        Template of the student, and of all other models except the teachers.
    n_jobs : int or None
        Models trained at the same time.
    seed : int
        Decides everything random.
    """

    X: Any
    labels: Labels
    student: Any
    n_jobs: int | None
    seed: int

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.labels.n_classes

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of predictions for all samples: (n_samples, n_classes)."""
        return _num_samples(self.X), self.n_classes

    def predict_proba(self, model: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Predict some `rows` of the samples, all by default."""
        return predict_proba(model, self.X, self.n_classes, rows)


@dataclass(frozen=True)
class View:
    """The labels as they look while some trusted samples are held out.

    Attributes
    ----------
    verified : ndarray of shape (n_samples,), int
        Codes of the samples that are trusted here, -1 elsewhere.
    given : ndarray of shape (n_samples,), int
        Given labels of all others; -1 where there is none or it is unknown.
    held_out : ndarray, int
        Rows of the trusted samples that are held out.
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
        """Return the view without the verified labels of `rows`, with their `given` ones if any."""
        verified, others = self.verified.copy(), self.given.copy()
        verified[rows] = MISSING
        others[rows] = MISSING if given is None else given[rows]
        return View(verified, others, rows)


def whole_view(labels: Labels) -> View:
    """Return the view that holds no trusted sample out."""
    given = np.where(labels.trusted, MISSING, labels.given)
    return View(labels.verified, given, np.arange(0))


def held_out_rows(folds: np.ndarray, *, at_most: int | None = None) -> list[np.ndarray]:
    """List folds of trusted samples, as many as are needed to hold out enough samples.

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
    n_held_out = np.cumsum([len(fold) for fold in rows])
    enough = int(np.searchsorted(n_held_out, ENOUGH_HELD_OUT)) + 1
    return rows[: enough if at_most is None else min(enough, at_most)]


def held_out_proba(predictions: list[np.ndarray], views: list[View]) -> np.ndarray:
    """Collect each view's predictions for the samples that it holds out."""
    parts = [proba[view.held_out] for proba, view in zip(predictions, views, strict=True)]
    return np.concatenate(parts)


def held_out_truth(views: list[View], n_classes: int) -> np.ndarray:
    """Collect the verified labels of held-out samples as one-hot rows; `views[0]` knows them."""
    codes = np.concatenate([views[0].verified[view.held_out] for view in views])
    return one_hot(codes, n_classes)


class NoiseFreeModels(NamedTuple):
    """Models that have read no noisy label, and their predictions for the held-out samples.

    Attributes
    ----------
    models : dict of str to list of fitted estimators
        ``trusted_only``, trained on the trusted samples; ``teacher``, one or several, trained on
        the augmented clean set unless the filter found nothing; and, except for networks,
        ``self_trained`` and ``self_trained_teacher``, which start from either and go on with their
        own confident predictions.
    held_out : dict of str to ndarray of shape (n_held_out, n_classes)
        Their predictions for the samples that the view holds out, not calibrated.
    """

    models: dict[str, list]
    held_out: dict[str, np.ndarray]

    def members(self, name: str) -> list:
        """List the models of that name, or those that stand in for them."""
        return self.models[self._present(name)]

    def held_out_proba(self, name: str) -> np.ndarray:
        """Return the predictions of `members` for the held-out samples."""
        return self.held_out[self._present(name)]

    def _present(self, name: str) -> str:
        return name if name in self.models else REPLACEMENTS[name]


def train_noise_free_models(
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
) -> NoiseFreeModels:
    """Train all models that read no noisy label; see `NoiseFreeModels`.

    The arguments are not bound in a `Problem`: they are the key under which the result is cached.

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
        Template of the teachers; template of all others.
    n_teachers : int or "auto"
        Number of teachers, each trained on the whole clean set; "auto": one.
    seed : int
        As for `train_teachers`.

    Returns
    -------
    noise_free : NoiseFreeModels
        The models and their predictions.
    """
    # 1. A model of the trusted samples alone.
    trusted_only = train_on_labels(student, X, verified, n_classes, seed)
    models = {"trusted_only": [trusted_only]}
    # 2. Teachers (lines 11-12), on all of the clean set, with weights instead of balanced subsets.
    found_more = (clean_labels != MISSING).sum() > (verified != MISSING).sum()
    if found_more:
        models["teacher"] = train_teachers(
            teacher,
            X,
            clean_labels,
            n_classes,
            n_teachers=1 if n_teachers == "auto" else n_teachers,
            sample_weight=_trusted_class_weights(verified, clean_labels, n_classes),
            seed=seed,
        )
    # 3. Self-training from both sets. Networks take too long to train again and again.
    if not continues_training(student):
        learned = self_train(student, X, verified, n_classes, first=trusted_only, seed=seed)
        models["self_trained"] = [learned]
        if found_more:
            learned = self_train(student, X, clean_labels, n_classes, seed=seed)
            models["self_trained_teacher"] = [learned]
    # 4. Their predictions for the held-out samples, on which the first guess is fitted.
    proba = {
        name: average_proba(members, X, n_classes, held_out) for name, members in models.items()
    }
    return NoiseFreeModels(models, proba)


def train_on_labels(estimator: Any, X: Any, labels: np.ndarray, n_classes: int, seed: int) -> Any:
    """Train a student on the samples that have a label; -1 means that a sample has none."""
    rows = np.flatnonzero(labels != MISSING)
    targets = one_hot(labels[rows], n_classes)
    subset = None if len(rows) == _num_samples(X) else rows
    return train(Training(estimator, X, targets, rows=subset, role="student", seed=seed))


def self_train(
    estimator: Any, X: Any, labels: np.ndarray, n_classes: int, *, first: Any = None, seed: int
) -> Any:
    """Train on labels, then on confident predictions too, until no new ones are confident.

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
        A model already trained on those labels; None: train one.
    seed : int
        Decides the training.

    Returns
    -------
    model : fitted estimator
        The last model.
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


def _trusted_class_weights(
    verified: np.ndarray, clean_labels: np.ndarray, n_classes: int
) -> np.ndarray:
    """Weight the clean set so that its class frequencies are those of the trusted samples.

    The filter finds many samples of some classes and none of others.
    """
    known = clean_labels != MISSING
    found = np.bincount(clean_labels[known], minlength=n_classes)
    trusted = np.bincount(verified[verified != MISSING], minlength=n_classes)
    weight = trusted / np.maximum(found, 1) * found.sum() / trusted.sum()
    return np.where(known, weight[clean_labels], 0.0)


@dataclass(frozen=True)
class FirstGuess:
    """Calibrated mixture of the noise-free models, fitted on held-out trusted samples.

    Attributes
    ----------
    temperatures : dict of str to Temperature
        Calibration of each kind of model.
    weights : dict of str to float
        Weights of the kinds, which sum to 1; 0 for those that are left out.
    """

    temperatures: dict[str, Temperature]
    weights: dict[str, float]

    @classmethod
    def fit(cls, proba: dict[str, np.ndarray], known: np.ndarray) -> "FirstGuess":
        """Fit on predictions of shape (n_held_out, n_classes); see `Temperature.fit`."""
        temperatures = {name: Temperature.fit(raw, known) for name, raw in proba.items()}
        calibrated = [temperatures[name].apply(raw) for name, raw in proba.items()]
        weights = drop_small(mixture_weights(calibrated, known)).tolist()
        return cls(temperatures, dict(zip(proba, weights, strict=True)))

    def predict_proba(self, noise_free: NoiseFreeModels, X: Any, n_classes: int) -> np.ndarray:
        """Predict probabilities of shape (n_samples, n_classes)."""

        def block_proba(block: slice) -> np.ndarray:
            rows = np.arange(block.start, block.stop)
            proba = {
                name: average_proba(noise_free.members(name), X, n_classes, rows)
                for name, weight in self.weights.items()
                if weight > 0
            }
            return self.mix(proba)

        return computed(block_proba, _num_samples(X))

    def mix(self, proba: dict[str, np.ndarray]) -> np.ndarray:
        """Calibrate and mix predictions of the models that have a weight."""
        parts = [
            self.weights[name] * self.temperatures[name].apply(raw) for name, raw in proba.items()
        ]
        return np.sum(parts, axis=0)

    def members(self, noise_free: NoiseFreeModels) -> list[tuple[Any, float, Temperature]]:
        """List the models, each with its weight and its calibration."""
        return [
            (model, weight / len(noise_free.members(name)), self.temperatures[name])
            for name, weight in self.weights.items()
            for model in noise_free.members(name)
        ]


def drop_small(weights: np.ndarray) -> np.ndarray:
    """Set small weights to 0; the others sum to 1 again."""
    large = np.where(weights < SMALLEST_WEIGHT, 0.0, weights)
    return large / large.sum()


@dataclass(frozen=True)
class NoiseFreeStage:
    """All results that no noisy label was read for, with and without held-out samples.

    Attributes
    ----------
    views : list of View
        The whole data first, then a view per held-out fold.
    models : list of NoiseFreeModels
        Models of each view.
    first_guess : FirstGuess
        Their mixture, fitted on the held-out samples of all views.
    guesses : list of ndarray of shape (n_samples, n_classes)
        First guess of all samples, for each view.
    """

    views: list[View]
    models: list[NoiseFreeModels]
    first_guess: FirstGuess
    guesses: list[np.ndarray]


def collect_held_out(models: list[NoiseFreeModels], name: str) -> np.ndarray:
    """Collect the predictions of one kind of model for the held-out samples of all views."""
    return np.concatenate([trained.held_out_proba(name) for trained in models])


def run_noise_free_stage(
    problem: Problem,
    clean_labels: np.ndarray,
    team_labels: np.ndarray,
    folds: np.ndarray,
    *,
    teacher: Any,
    n_teachers: int | str,
    compare: bool,
) -> NoiseFreeStage:
    """Train the noise-free models of the whole data and of each view that holds a fold out.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner; no given label of a noisy sample is read.
    clean_labels : ndarray of shape (n_samples,), int
        The augmented clean set.
    team_labels : ndarray of shape (n_folds, n_samples), int
        The augmented clean sets found without each fold of the trusted samples.
    folds : ndarray of shape (n_samples,), int
        Fold of each trusted sample; -1 for all others.
    teacher : classifier
        Template of the teachers.
    n_teachers : int or "auto"
        Number of teachers.
    compare : bool
        Whether to hold trusted samples out. Without, models weigh the same in the first guess and
        are not calibrated.

    Returns
    -------
    noise_free : NoiseFreeStage
        Views, models and first guess.
    """
    X, n_classes = problem.X, problem.n_classes
    # 1. Views: everything, and everything without a fold. Networks take long enough to train for
    # one fold. Given labels of held-out samples are not read before they are known to be originals.
    at_most = 1 if continues_training(problem.student) else None
    held_out = held_out_rows(folds, at_most=at_most) if compare else []
    whole = whole_view(problem.labels)
    views = [whole, *(whole.holding_out(rows, None) for rows in held_out)]
    # 2. Noise-free models of each view.
    train_models = kept(train_noise_free_models)
    with stage("noise-free models", len(views)) as advance:
        tasks = (
            delayed(train_models)(
                X,
                view.verified,
                clean,
                view.held_out,
                n_classes,
                teacher,
                problem.student,
                n_teachers=n_teachers,
                seed=problem.seed,
            )
            for view, clean in zip(views, [clean_labels, *team_labels], strict=False)
        )
        models = []
        for trained in in_order(tasks, problem.n_jobs):
            models.append(trained)
            advance(1)
    # 3. The first guess: their calibrated mixture that makes the held-out labels likeliest.
    judged = {name: collect_held_out(models, name) for name in models[0].models}
    first_guess = FirstGuess.fit(judged, held_out_truth(views, n_classes))
    # 4. What it predicts for all samples, in each view.
    predicting = [delayed(first_guess.predict_proba)(trained, X, n_classes) for trained in models]
    guesses = list(rows_in_order(predicting, problem.n_jobs, problem.shape))
    return NoiseFreeStage(views, models, first_guess, guesses)


@dataclass(frozen=True)
class StudentCalibration:
    """The student's calibration, and its weight in the mixture with the first guess.

    Attributes
    ----------
    temperature : Temperature
        Calibrates the student.
    weight : float in [0, 1]
        The student's weight; the first guess has the rest.
    """

    temperature: Temperature = field(default_factory=Temperature)
    weight: float = 1.0

    @classmethod
    def fit(cls, student: np.ndarray, guess: np.ndarray, truth: np.ndarray) -> "StudentCalibration":
        """Fit on predictions for held-out samples, of which the first guess is calibrated."""
        temperature = Temperature.fit(student, truth)
        weights = mixture_weights([guess, temperature.apply(student)], truth)
        return cls(temperature, weights[1])

    def mix(self, student: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Calibrate a student's predictions and mix them with the first guess."""
        return rowwise(
            lambda p, q: self.weight * self.temperature.apply(p) + (1 - self.weight) * q,
            student,
            guess,
        )


class StudentFit(NamedTuple):
    """A trained student, and the labels and quantities that it was trained with.

    Attributes
    ----------
    student : fitted estimator
        The student.
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions mixed with the first guess, by students that have not seen the
        sample's own label.
    targets : ndarray of shape (n_samples, n_classes)
        Posterior labels: `proba` combined with the given and verified labels.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        The `T` that was used for that.
    calibration : StudentCalibration
        Calibration of the student, and its weight beside the first guess.
    n_rounds : int
        Number of rounds.
    held_out : ndarray of shape (n_held_out, n_classes)
        Calibrated predictions for the held-out samples of all views.
    """

    student: Any
    proba: np.ndarray
    targets: np.ndarray
    transition_matrix: np.ndarray
    calibration: StudentCalibration
    n_rounds: int
    held_out: np.ndarray


@dataclass(frozen=True)
class TransitionEstimator:
    """Gives the transition matrix that students are trained with.

    Attributes
    ----------
    known : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; None: estimate it.
    originals : Originals, default=None
        Labels that trusted samples had before they were verified, which the estimate counts too.
    """

    known: np.ndarray | None = None
    originals: Originals | None = None

    def estimate(
        self, view: View, proba: np.ndarray, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Estimate `T` of shape (n_classes, n_classes) under predictions of the true classes."""
        if self.known is not None:
            return self.known
        rows = view.labelled
        T = fit_transition_matrix(take_rows(proba, rows), view.given[rows], start=start)
        # About the standard error, if the classes of the samples were known.
        spread = np.sqrt(T * (1 - T) * len(T) / max(len(rows), 1))
        return combine(T, spread, self.originals)[0]


def posterior_labels(
    proba: np.ndarray,
    T: np.ndarray,
    view: View,
    postprocess: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Combine predictions of shape (n_samples, n_classes) with the labels, by Bayes' rule."""
    return rowwise(
        lambda p, given, verified: postprocess(bayes_rule(p, likelihood(T, given, verified))),
        proba,
        view.given,
        view.verified,
    )


class Round(NamedTuple):
    """Results of one round of `learn_in_rounds`.

    Attributes
    ----------
    targets : list of ndarray of shape (n_samples, n_classes), float32
        Posterior labels that its students were trained on, for each view.
    proba : ndarray of shape (n_samples, n_classes)
        Predictions of its students, mixed with the first guess.
    calibration : StudentCalibration
        Calibration of its students.
    held_out : ndarray of shape (n_held_out, n_classes)
        Calibrated predictions of its students alone for the held-out samples.
    """

    targets: list[np.ndarray]
    proba: np.ndarray
    calibration: StudentCalibration
    held_out: np.ndarray


def learn_in_rounds(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
) -> StudentFit:
    """Train a student by expectation-maximisation, with any learner.

    All views go through the rounds together. Their held-out samples calibrate each round's
    predictions, and decide which round's posterior labels the final students are trained on.
    """
    whole, truth = views[0], held_out_truth(views, problem.n_classes)
    # 1. Rounds of posterior labels and cross-fitted predictions.
    rounds, T = _run_rounds(problem, views, guesses, transition)
    # 2. Take the last round that is as good as the best one.
    n_rounds = best_round([done.held_out for done in rounds], truth)
    best = rounds[n_rounds - 1]
    T = transition.estimate(whole, best.proba, T)
    # 3. Train a student of each view on all that round's labels, not cross-fitted.
    tasks = (
        _student_training(problem, view, rowwise(lambda block: block.astype(float), targets))
        for view, targets in zip(views, best.targets, strict=True)
    )
    students = list(train_all(tasks, problem.n_jobs))
    # 4. Calibrate again: a learner may give other probabilities than its cross-fitted copies.
    parts = [best.held_out[:0]]
    for student, view in zip(students[1:], views[1:], strict=True):
        parts.append(problem.predict_proba(student, view.held_out))
    held_out, calibration = np.concatenate(parts), best.calibration
    if len(truth):
        calibration = StudentCalibration.fit(held_out, held_out_proba(guesses, views), truth)
    return StudentFit(
        student=students[0],
        proba=best.proba,
        targets=posterior_labels(best.proba, T, whole),
        transition_matrix=T,
        calibration=calibration,
        n_rounds=n_rounds,
        held_out=calibration.temperature.apply(held_out),
    )


def _run_rounds(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
) -> tuple[list[Round], np.ndarray]:
    """Run rounds until the posterior labels settle; return them and the last `T`."""
    whole, truth = views[0], held_out_truth(views, problem.n_classes)
    guess = held_out_proba(guesses, views)
    folds = [folds_for(len(whole.given)), *[HELD_OUT_FOLDS] * (len(views) - 1)]
    T: np.ndarray | None = None
    probas, targets = guesses, [np.zeros(0)] * len(views)
    rounds: list[Round] = []
    with stage("student", MAX_ROUNDS) as advance:
        for n in range(1, MAX_ROUNDS + 1):
            # a. Estimate the transition matrix under the current predictions.
            T = transition.estimate(whole, probas[0], T)
            # b. Combine predictions and given labels, and stop where that changes little.
            previous = targets
            targets = [
                posterior_labels(proba, T, view, _without_negligible)
                for view, proba in zip(views, probas, strict=True)
            ]
            if rounds and _distance(targets[0], previous[0], whole) < SETTLED:
                break
            # c. Train students on these labels; each predicts samples that it was not trained on.
            raw = _cross_fit(problem, targets, folds)
            # d. Calibrate them on held-out samples, or else on all trusted ones.
            if len(truth):
                raw_held_out = held_out_proba(raw, views)
                calibration = StudentCalibration.fit(raw_held_out, guess, truth)
            else:
                known = one_hot(whole.verified[whole.trusted], problem.n_classes)
                calibration = StudentCalibration(Temperature.fit(raw[0][whole.trusted], known))
            # e. Mix them with the first guess: the predictions of the next round.
            probas = [calibration.mix(p, q) for p, q in zip(raw, guesses, strict=True)]
            held_out = calibration.temperature.apply(held_out_proba(raw, views))
            compact = [rowwise(lambda block: block.astype(np.float32), y) for y in targets]
            rounds.append(Round(compact, probas[0], calibration, held_out))
            advance(1, detail=f"round {n}")
        advance(to=MAX_ROUNDS)
    return rounds, T


def _student_training(problem: Problem, view: View, targets: np.ndarray) -> Training:
    """Describe the training of a view's student, without the samples that it is judged on."""
    rows = None
    if len(view.held_out):
        rows = np.setdiff1d(np.arange(len(targets)), view.held_out)
        targets = take_rows(targets, rows)
    return Training(
        problem.student, problem.X, targets, rows=rows, role="student", seed=problem.seed
    )


def _cross_fit(problem: Problem, targets: list[np.ndarray], folds: list[int]) -> list[np.ndarray]:
    """Cross-fit all views in parallel; a single view's folds in parallel."""
    outer, inner = (1, problem.n_jobs) if len(targets) == 1 else (problem.n_jobs, 1)
    tasks = [
        delayed(cross_fit_proba)(
            problem.student, problem.X, y, n_folds=n_folds, n_jobs=inner, seed=problem.seed
        )
        for y, n_folds in zip(targets, folds, strict=True)
    ]
    return list(rows_in_order(tasks, outer, targets[0].shape))


def folds_for(n_samples: int) -> int:
    """Choose the number of folds for cross-fitted predictions."""
    return next(folds for size, folds in FOLDS_BY_SIZE if n_samples <= size)


def _without_negligible(targets: np.ndarray) -> np.ndarray:
    """Set negligible classes to 0; rows sum to 1 again."""
    relevant = targets >= NEGLIGIBLE * targets.max(axis=1, keepdims=True)
    targets = np.where(relevant, targets, 0.0)
    return targets / targets.sum(axis=1, keepdims=True)


def _distance(targets: np.ndarray, previous: np.ndarray, view: View) -> float:
    """Mean total variation over the samples that are not trusted."""
    rows = view.verified == MISSING
    moved = rowwise(lambda new, old: np.abs(new - old).sum(axis=1), targets, previous)
    return float(moved[rows].mean() / 2) if rows.any() else 0


def best_round(held_out: list[np.ndarray], truth: np.ndarray) -> int:
    """Choose the last round that is as good as the best, within the error of the comparison.

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
        From 1. A round is worse than another if its log-likelihood is lower by more than one
        standard error of the difference.

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


def learn_by_likelihood(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
) -> StudentFit:
    """Train a network on the likelihood of the labels; its posterior labels change every batch."""
    whole, truth = views[0], held_out_truth(views, problem.n_classes)

    def training(view: View, T: np.ndarray) -> Training:
        return likelihood_training(problem.student, problem.X, view, T, problem.seed)

    # 1. The transition matrix under the first guess.
    T = transition.estimate(whole, guesses[0])
    # 2. Two networks that each read no given label of one half of the noisy samples, and one for
    # each view that holds samples out.
    half = np.random.default_rng(problem.seed).integers(2, size=len(whole.given))
    hidden = [np.flatnonzero((half == n) & (whole.verified == MISSING)) for n in range(2)]
    network_views = [*(whole.holding_out(rows, None) for rows in hidden), *views[1:]]
    with stage("student", len(network_views) + 1) as advance:
        predictions = []
        tasks = (training(view, T) for view in network_views)
        for network in train_all(tasks, problem.n_jobs):
            predictions.append(problem.predict_proba(network))
            advance(1)
        # 3. Predict each sample by the network that has not read its given label.
        blind = rowwise(lambda n, *p: np.where(n[:, None] == 0, *p), half, *predictions[:2])
        # 4. Calibrate on held-out samples, and mix with the first guess.
        held_out, calibration = (
            held_out_proba([blind, *predictions[2:]], views),
            StudentCalibration(),
        )
        if len(truth):
            calibration = StudentCalibration.fit(held_out, held_out_proba(guesses, views), truth)
        proba = calibration.mix(blind, guesses[0])
        # 5. Train the final network with the transition matrix under these predictions.
        T = transition.estimate(whole, proba, T)
        student = train(training(whole, T))
        advance(1)
    return StudentFit(
        student=student,
        proba=proba,
        targets=posterior_labels(proba, T, whole),
        transition_matrix=T,
        calibration=calibration,
        n_rounds=1,
        held_out=calibration.temperature.apply(held_out),
    )


def likelihood_training(estimator: Any, X: Any, view: View, T: np.ndarray, seed: int) -> Training:
    """Describe the training of a network on the likelihood of each label given the true class.

    Parameters
    ----------
    estimator : network
        As `TorchClassifier`.
    X : samples of shape (n_samples, ...)
        Samples.
    view : View
        Their labels; all classes are equally likely for the samples that it holds out.
    T : ndarray of shape (n_classes, n_classes)
        Transition matrix.
    seed : int
        Decides the training.

    Returns
    -------
    training : Training
        The task for `train`.
    """
    known = rowwise(lambda *labels: likelihood(T, *labels), view.given, view.verified)
    known[view.held_out] = 1.0
    params = {"loss": "likelihood", "mixup": 0.0}
    return Training(estimator, X, known, role="noise_aware", seed=seed, params=params)


def learn(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    *,
    transition_matrix: np.ndarray | None = None,
    originals: Originals | None = None,
) -> StudentFit:
    """Train a student on all samples, with their given and verified labels.

    Parameters
    ----------
    problem : Problem
        Samples and learner.
    views : list of View
        The labels; and the same with some trusted samples held out, on which students trained in
        the same way are calibrated and judged.
    guesses : list of ndarray of shape (n_samples, n_classes)
        For each view a first, calibrated guess that has read no noisy label.
    transition_matrix : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; estimated by default.
    originals : Originals, default=None
        Labels that trusted samples had before they were verified.

    Returns
    -------
    student_fit : StudentFit
        The student of the first view.
    """
    transition = TransitionEstimator(transition_matrix, originals)
    if continues_training(problem.student):
        return learn_by_likelihood(problem, views, guesses, transition)
    return learn_in_rounds(problem, views, guesses, transition)


def find_originals(
    labels: Labels, view: View, guess: np.ndarray
) -> tuple[Originals | None, str | None]:
    """Call `known_originals` with the noise rate that the first guess implies."""
    rows = np.flatnonzero(labels.trusted)
    given = view.given[view.labelled]
    rate = 0.0
    if len(given):
        proba = take_rows(guess, view.labelled)
        T = fit_transition_matrix(proba, given)
        right = rowwise(lambda p, codes: _given_label_proba(T, p, codes), proba, given)
        rate = float(1 - right.mean())
    return known_originals(
        labels.verified[rows], labels.given[rows], rate, from_mask=labels.from_mask
    )


def _given_label_proba(T: np.ndarray, proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Compute the posterior probability that each given label is right."""
    return bayes_rule(proba, likelihood(T, given))[np.arange(len(given)), given]


class Outcome(NamedTuple):
    """Results of `learn_and_ship`.

    Attributes
    ----------
    student_fit : StudentFit
        The student.
    noise : NoiseEstimate
        Noise in the given labels.
    comparison : Comparison
        The candidates' results, and the choice.
    model : fitted estimator
        The model that is shipped, which `predict` uses.
    adapted : dict of str to float
        Values of the quantities that adapt to the data.
    """

    student_fit: StudentFit
    noise: NoiseEstimate
    comparison: Comparison
    model: Any
    adapted: dict[str, float]


def learn_and_ship(
    problem: Problem, noise_free: NoiseFreeStage, *, transition_matrix: np.ndarray | None
) -> Outcome:
    """Train the student, estimate the noise, compare all candidates, and ship the best.

    The augmented clean set, the teachers (lines 1-12 of Algorithm 1) and the first guess come with
    `noise_free`; this stands for lines 13-14.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner.
    noise_free : NoiseFreeStage
        As from `run_noise_free_stage`.
    transition_matrix : ndarray of shape (n_classes, n_classes) or None
        `T`, if it is known.

    Returns
    -------
    outcome : Outcome
        The student, the noise and the model to ship.
    """
    labels, guesses, whole = problem.labels, noise_free.guesses, whole_view(problem.labels)
    # 1. Decide whether trusted samples still have the labels that they were given. If so, views
    # that hold them out treat these labels as any other noisy label.
    originals, warning = find_originals(labels, whole, guesses[0])
    views = [whole] + [
        whole.holding_out(view.held_out, labels.given if originals else None)
        for view in noise_free.views[1:]
    ]
    # 2. Train the student on posterior labels (in place of lines 13-14).
    student_fit = learn(
        problem, views, guesses, transition_matrix=transition_matrix, originals=originals
    )
    # 3. Judge the candidates on held-out trusted samples.
    comparison, weights = judge(problem, noise_free, student_fit, views)
    # 4. Estimate the noise under the student's predictions.
    noise = estimate_noise(
        labels.classes,
        take_rows(student_fit.proba, whole.labelled),
        whole.given[whole.labelled],
        originals,
        student_fit.calibration.temperature,
        notes=[] if warning is None else [warning],
        seed=problem.seed,
    )
    # 5. Ship the candidate that was chosen.
    model = ship(comparison.shipped, problem, noise_free, student_fit, weights)
    adapted = _adapted(noise_free, student_fit, weights)
    return Outcome(student_fit, noise, comparison, model, adapted)


@dataclass(frozen=True)
class CandidateWeights:
    """Weights of the predictions in the candidate "mixture", fitted on held-out trusted samples.

    Attributes
    ----------
    guess, student, given_labels : float in [0, 1]
        Weights of the first guess, the student and training on the given labels; they sum to 1.
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
    ) -> "CandidateWeights":
        """Fit on predictions of shape (n_held_out, n_classes), the first two calibrated."""
        if len(truth) == 0:
            return cls(0.0, 1.0, 0.0, Temperature())
        temperature = Temperature.fit(given, truth)
        predictions = [guess, student, temperature.apply(given)]
        lead = log_likelihood(predictions[1], truth) - log_likelihood(predictions[2], truth)
        if lead.mean() > lead.std() / np.sqrt(len(truth)):
            # A student that is clearly better has learned all that is in the given labels.
            weights = np.append(mixture_weights(predictions[:2], truth), 0.0)
        else:
            weights = mixture_weights(predictions, truth, PRIOR_OF_MIXTURE)
        return cls(*drop_small(weights).tolist(), temperature)

    def mix(self, guess: np.ndarray, student: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Mix predictions of shape (n_samples, n_classes)."""
        given = self.given_temperature.apply(given)
        return self.guess * guess + self.student * student + self.given_labels * given


def judge(
    problem: Problem, noise_free: NoiseFreeStage, student_fit: StudentFit, views: list[View]
) -> tuple[Comparison, CandidateWeights]:
    """Compare what could be shipped on the samples that the views hold out.

    Returns
    -------
    comparison : Comparison
        The candidates' results, and the choice.
    weights : CandidateWeights
        Weights of the candidate "mixture".
    """
    truth, student = held_out_truth(views, problem.n_classes), student_fit.held_out
    guess = held_out_proba(noise_free.guesses, views)
    given = _given_labels_held_out(problem, views)
    weights = CandidateWeights.fit(guess, student, given, truth)
    candidates = {
        "trusted_only": collect_held_out(noise_free.models, "trusted_only"),
        "given_labels": given,
        "teacher": collect_held_out(noise_free.models, "teacher"),
        "student": student,
    }
    if weights.student < 1:
        candidates["mixture"] = weights.mix(guess, student, given)
    codes = truth.argmax(axis=1)
    comparison = compare(candidates, codes, seed=problem.seed)
    if warning := unjudged(problem.labels.classes, codes):
        warn_user(warning, TrustedWarning)
        comparison = replace(comparison, why=f"{comparison.why} {warning}")
    return comparison, weights


def _given_labels_held_out(problem: Problem, views: list[View]) -> np.ndarray:
    """Predict held-out samples by models trained on the given labels of all others.

    Also where held-out samples have a given label: new samples have none either.
    """
    whole = views[0]
    models = (
        delayed(given_labels_model)(problem, whole.holding_out(view.held_out, None))
        for view in views[1:]
    )
    parts = [np.zeros((0, problem.n_classes))]
    with stage("comparison", len(views) - 1) as advance:
        for view, model in zip(views[1:], in_order(models, problem.n_jobs), strict=True):
            parts.append(problem.predict_proba(model, view.held_out))
            advance(1)
    return np.concatenate(parts)


def given_labels_model(problem: Problem, view: View) -> Any:
    """Train on the labels as they are: verified where trusted, else given."""
    labels = np.where(view.verified == MISSING, view.given, view.verified)
    return train_on_labels(problem.student, problem.X, labels, problem.n_classes, problem.seed)


def ship(
    name: str,
    problem: Problem,
    noise_free: NoiseFreeStage,
    student_fit: StudentFit,
    weights: CandidateWeights,
) -> Any:
    """Return the model that makes a candidate's predictions.

    Parameters
    ----------
    name : {"mixture", "student", "teacher", "trusted_only", "given_labels"}
        The candidate.
    problem, noise_free, student_fit, weights
        Samples and learner, and what was trained.

    Returns
    -------
    model : fitted estimator
        One model, or a `Mixture`.
    """
    models, first_guess = noise_free.models[0], noise_free.first_guess
    if name == "student":
        return student_fit.student
    if name == "given_labels":
        return given_labels_model(problem, whole_view(problem.labels))
    if name == "trusted_only" or (name == "teacher" and "teacher" not in models.models):
        return models.models["trusted_only"][0]
    if name == "teacher":
        teachers = FirstGuess({"teacher": first_guess.temperatures["teacher"]}, {"teacher": 1.0})
        members = teachers.members(models)
    else:
        members = [
            (model, weights.guess * weight, temperature)
            for model, weight, temperature in first_guess.members(models)
        ]
        members.append((student_fit.student, weights.student, student_fit.calibration.temperature))
        if weights.given_labels:
            given = given_labels_model(problem, whole_view(problem.labels))
            members.append((given, weights.given_labels, weights.given_temperature))
    chosen = zip(*(member for member in members if member[1] > 0), strict=True)
    return Mixture(*map(list, chosen), problem.n_classes)


def _adapted(
    noise_free: NoiseFreeStage, student_fit: StudentFit, weights: CandidateWeights
) -> dict[str, float]:
    """List the quantities that adapt to the data, for the attribute ``adapted_``."""
    first_guess = noise_free.first_guess
    return {
        "rounds": student_fit.n_rounds,
        "student_share": weights.student,
        "given_labels_share": weights.given_labels,
        **{f"{name}_share_of_guess": w for name, w in first_guess.weights.items()},
        "sharpness_of_student": student_fit.calibration.temperature.sharpness,
        **{f"sharpness_of_{name}": t.sharpness for name, t in first_guess.temperatures.items()},
        "held_out_trusted_samples": sum(len(view.held_out) for view in noise_free.views),
    }
