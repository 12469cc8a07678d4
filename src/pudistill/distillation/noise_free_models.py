"""Models that read no noisy label, and the first guess: their calibrated mixture."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.utils.validation import _num_samples

from pudistill.distillation.network_student import train_semi_supervised
from pudistill.distillation.paper import average_proba, train_teachers
from pudistill.distillation.problem import Problem
from pudistill.distillation.self_training import self_train, train_on_labels
from pudistill.distillation.views import View, held_out_rows, held_out_truth, whole_view
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.model_selection import deal_folds
from pudistill.labels.pseudo_labels import one_hot
from pudistill.labels.samples import is_pictures
from pudistill.learners.cache import cached
from pudistill.learners.calibration import Temperature, mixture_weights
from pudistill.learners.capabilities import continues_training
from pudistill.learners.parallel import in_order, rows_in_order
from pudistill.learners.regularisation import choose_regularisation, with_regularisation
from pudistill.pu_filter.estimator import TieredPUFilter
from pudistill.pu_filter.plan import N_TEAMS
from pudistill.utils.arrays import compute_in_blocks
from pudistill.utils.progress import stage
from pudistill.utils.time_limit import note_cut, stage_begins

# Predictions with a smaller weight are left out of a mixture.
SMALLEST_WEIGHT = 0.05


# The models that stand in for the teachers if the filter found no sample.
REPLACEMENTS = {"teacher": "trusted_only", "self_trained_teacher": "self_trained"}


class NoiseFreeModels(NamedTuple):
    """Models that have read no noisy label, and their predictions for the held-out samples.

    Attributes
    ----------
    by_name : dict of str to list of fitted estimators
        ``trusted_only``, trained on the trusted samples; ``teacher``, one or more models trained on
        the augmented clean set, missing if the filter found nothing; except for networks,
        ``self_trained`` and ``self_trained_teacher``, which start from the trusted samples or the
        clean set and continue with their own confident predictions; and, for networks on pictures,
        ``semi_supervised``, trained on the trusted samples and on all pictures without a label.
    held_out : dict of str to ndarray of shape (n_held_out, n_classes)
        Their predictions for the samples that the view holds out, not calibrated.
    """

    by_name: dict[str, list]
    held_out: dict[str, np.ndarray]
    cut_short: bool = False  # by a time limit; such a result is not stored

    def members(self, name: str) -> list:
        """List the models of that name, or the models that stand in for them."""
        return self.by_name[self._present(name)]

    def held_out_proba(self, name: str) -> np.ndarray:
        """Return the predictions of `members` for the held-out samples."""
        return self.held_out[self._present(name)]

    def _present(self, name: str) -> str:
        return name if name in self.by_name else REPLACEMENTS[name]


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
    semi_supervised: bool = False,
    is_update: bool = False,
    groups: np.ndarray | None = None,
    unseen: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    part: tuple[int, int] = (0, 1),
) -> NoiseFreeModels:
    """Train all models that read no noisy label; see `NoiseFreeModels`.

    There is no parameter `problem`, because the arguments are the key under which the result is
    cached.

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
        Template of the teachers; template of all other models.
    n_teachers : int or "auto"
        Number of teachers, each trained on the whole clean set; "auto": one.
    seed : int
        Decides the training.
    semi_supervised : bool, default=False
        Whether to train the model of that name.
    is_update : bool, default=False
        Whether to leave out what an earlier fit has trained: the self-trained models and, of
        networks, the teachers.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups.
    unseen : ndarray, int, default=None
        Rows that no model may learn from, not even by predictions for them.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples.
    part : tuple of two int
        Number of this view, from 0, and number of views, which share a time limit.

    Returns
    -------
    noise_free : NoiseFreeModels
        The models and their predictions.
    """
    # 1. Train a model on the trusted samples alone.
    weighted: dict[str, Any] = {"groups": groups, "sample_weight": sample_weight}
    trusted_only = train_on_labels(student, X, verified, n_classes, seed, **weighted)
    models = {"trusted_only": [trusted_only]}
    # 2. Train teachers (lines 11-12) on the whole clean set, weighted instead of balanced.
    found_more = (clean_labels != MISSING).sum() > (verified != MISSING).sum()
    is_network = continues_training(student)
    if found_more and not (is_network and is_update):
        weights = _trusted_class_weights(verified, clean_labels, n_classes)
        models["teacher"] = train_teachers(
            teacher,
            X,
            clean_labels,
            n_classes,
            n_teachers=1 if n_teachers == "auto" else n_teachers,
            balance=False,
            sample_weight=weights if sample_weight is None else weights * sample_weight,
            seed=seed,
            groups=groups,
            role="reference",
        )
    # 3. Self-train from both sets, except for networks, which take too long to train repeatedly:
    # they learn from their own predictions within one training.
    cut_short = False
    if not is_network and not is_update:
        weighted |= {"unseen": unseen, "seed": seed, "part": part}
        learned, cut_short = self_train(
            student, X, verified, n_classes, first=trusted_only, **weighted
        )
        models["self_trained"] = [learned]
        if found_more:
            learned, is_cut = self_train(student, X, clean_labels, n_classes, **weighted)
            models["self_trained_teacher"] = [learned]
            cut_short |= is_cut
    elif semi_supervised and is_network and not is_update and is_pictures(X):
        view = View(verified, np.full(len(verified), MISSING), held_out, groups)
        models["semi_supervised"] = [
            train_semi_supervised(trusted_only, X, view, n_classes, seed, sample_weight)
        ]
    # 4. Predict the held-out samples, on which the first guess is fitted.
    proba = {
        name: average_proba(members, X, n_classes, held_out) for name, members in models.items()
    }
    return NoiseFreeModels(models, proba, cut_short)


def folds_without_teams(labels: Labels, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Deal folds of the trusted samples for a filter that has no teams, because its rule is given.

    Its clean set has learned from every fold, so a view that holds a fold out starts from the other
    trusted samples alone.

    Returns
    -------
    folds : ndarray of shape (n_samples,), int
        Fold of each sample; -1 for none.
    team_labels : ndarray of shape (n_folds, n_samples), int
        The verified labels of the samples outside each fold, -1 elsewhere.
    """
    dealt = np.where(labels.drawn, labels.verified, MISSING)
    folds = deal_folds(dealt, N_TEAMS, seed, labels.groups)
    team_labels = np.tile(labels.verified, (N_TEAMS, 1))
    team_labels[folds == np.arange(N_TEAMS)[:, None]] = MISSING
    return folds, team_labels


def choose_noise_free_regularisation(problem: Problem) -> float:
    """Choose the `C` of the default learner for models that learn from few, right labels.

    Folds of the trusted samples are held out one by one, and predicted by models of the others.

    Parameters
    ----------
    problem : Problem
        Samples, labels and the default learner.

    Returns
    -------
    C : float
        See `choose_regularisation`.
    """
    verified, n_classes = problem.labels.verified, problem.n_classes
    groups = problem.labels.groups
    dealt = np.where(problem.labels.drawn, verified, MISSING)
    folds = np.where(dealt == MISSING, MISSING, deal_folds(dealt, N_TEAMS, problem.seed, groups))
    held_out = held_out_rows(folds)
    views = [whole_view(problem.labels).holding_out(rows, None) for rows in held_out]
    if not views:
        return 1.0

    def held_out_proba_at(C: float) -> np.ndarray:
        learner = with_regularisation(problem.student, C)
        tasks = (
            delayed(train_on_labels)(
                learner,
                problem.X,
                view.verified,
                n_classes,
                problem.seed,
                groups=groups,
                sample_weight=problem.labels.sample_weight,
            )
            for view in views
        )
        models = in_order(tasks, problem.n_tasks)
        parts = zip(models, held_out, strict=True)
        return np.concatenate([problem.predict_proba(model, rows) for model, rows in parts])

    codes = verified[np.concatenate(held_out)]
    return choose_regularisation(held_out_proba_at, one_hot(codes, n_classes))


def _trusted_class_weights(
    verified: np.ndarray, clean_labels: np.ndarray, n_classes: int
) -> np.ndarray:
    """Weight the clean set so that its class frequencies are those of the trusted samples.

    The filter can find many samples of some classes and none of others.
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
        Weights of the kinds, which sum to 1; 0 for a kind that is left out.
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

        return compute_in_blocks(block_proba, _num_samples(X))

    def mix(self, proba: dict[str, np.ndarray]) -> np.ndarray:
        """Calibrate and mix predictions of the models that have a weight."""
        parts = [
            self.weights[name] * self.temperatures[name].apply(raw) for name, raw in proba.items()
        ]
        return np.sum(parts, axis=0)

    def members(self, noise_free: NoiseFreeModels) -> list[tuple[Any, float, Temperature]]:
        """List all models, each with its weight and its calibration."""
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
    """All results computed without reading a noisy label, for each view.

    Attributes
    ----------
    views : list of View
        First the view of all trusted samples, then a view per held-out fold.
    models : list of NoiseFreeModels
        Models of each view.
    first_guess : FirstGuess
        Their mixture, fitted on the held-out samples of all views.
    guesses : list of ndarray of shape (n_samples, n_classes)
        For each view, the first guess for all samples.
    """

    views: list[View]
    models: list[NoiseFreeModels]
    first_guess: FirstGuess
    guesses: list[np.ndarray]

    @property
    def semi_supervised(self) -> list[Any]:
        """The network of that name for each view, or None."""
        return [models.by_name.get("semi_supervised", [None])[0] for models in self.models]


def collect_held_out(models: list[NoiseFreeModels], name: str) -> np.ndarray:
    """Collect the predictions of one kind of model for the held-out samples of all views."""
    return np.concatenate([trained.held_out_proba(name) for trained in models])


def start_from_votes(problem: Problem) -> NoiseFreeStage:
    """Guess by the votes of several sources, where nothing is verified to learn from."""
    labels, nothing = problem.labels, np.zeros((0, problem.n_classes))
    names = ("trusted_only", "teacher")
    models = NoiseFreeModels({name: [] for name in names}, dict.fromkeys(names, nothing))
    guess = np.full(problem.shape, 1 / problem.n_classes)
    if labels.sources is not None:
        guess = labels.sources.votes() + 1 / problem.n_classes
        guess /= guess.sum(axis=1, keepdims=True)
    return NoiseFreeStage([whole_view(labels)], [models], FirstGuess({}, {}), [guess])


def teach(
    problem: Problem,
    found: TieredPUFilter,
    *,
    teacher: Any,
    n_teachers: int | str,
    compare: bool,
) -> tuple[NoiseFreeStage, list, np.ndarray]:
    """Train all models that read no noisy label (lines 11-12 of Algorithm 1).

    Parameters
    ----------
    problem, teacher, n_teachers, compare
        As for `run_noise_free_stage`.
    found : TieredPUFilter
        The fitted filter.

    Returns
    -------
    noise_free : NoiseFreeStage
        Views, models and first guess.
    teachers : list of fitted estimators
        The teachers that have seen all trusted samples.
    proba : ndarray of shape (n_noisy, n_classes)
        Their average prediction for the samples that are not trusted; the votes of several sources
        where no sample is trusted.
    """
    if not problem.labels.trusted.any():
        noise_free = start_from_votes(problem)
        return noise_free, [], noise_free.guesses[0]
    folds, team_labels = found.folds_, found.team_labels_
    if folds.max() < 0:  # a filter with a given rule has no teams
        folds, team_labels = folds_without_teams(problem.labels, problem.seed)
    noise_free = run_noise_free_stage(
        problem,
        found.clean_labels_,
        team_labels,
        folds,
        teacher=teacher,
        n_teachers=n_teachers,
        compare=compare,
    )
    models, noisy = noise_free.models[0], np.flatnonzero(~problem.labels.trusted)
    members = models.members("teacher")
    # One task, so that a large result goes to a temporary file.
    predicting = delayed(average_proba)(members, problem.X, problem.n_classes, noisy)
    (proba,) = rows_in_order([predicting], 1, (len(noisy), problem.n_classes))
    return noise_free, models.by_name.get("teacher", []), proba


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
    """Train the noise-free models on all trusted samples, and on each view that holds a fold out.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner; no given label of a noisy sample is read.
    clean_labels : ndarray of shape (n_samples,), int
        The augmented clean set.
    team_labels : ndarray of shape (n_folds, n_samples), int
        The augmented clean sets found without each fold of the trusted samples.
    folds : ndarray of shape (n_samples,), int
        Fold of each trusted sample, and of the other samples of its group; -1 for all others.
    teacher : classifier
        Template of the teachers.
    n_teachers : int or "auto"
        Number of teachers.
    compare : bool
        Whether to hold trusted samples out. If not, all models have the same weight in the first
        guess and are not calibrated.

    Returns
    -------
    noise_free : NoiseFreeStage
        Views, models and first guess.
    """
    X, n_classes = problem.X, problem.n_classes
    # 1. Make the views: with all trusted samples, and without each fold. Networks take long to
    # train: one fold if it is large enough, else all, among which the given labels are dealt (see
    # `deal_unread`). Given labels of held-out samples stay hidden: it is not known yet whether they
    # have been overwritten.
    one_or_all = continues_training(problem.student)
    folds = np.where(problem.labels.drawn, folds, MISSING)  # the group's others are hidden only
    held_out = held_out_rows(folds, one_or_all=one_or_all) if compare else []
    if problem.earlier is not None:  # of other views, no predictions are known
        held_out = held_out[: problem.earlier.n_folds]
    whole = whole_view(problem.labels)
    views = [whole, *(whole.holding_out(rows, None) for rows in held_out)]
    # 2. Train the noise-free models of each view.
    train_models = cached(train_noise_free_models, ignore=["part"])
    stage_begins()
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
                semi_supervised=problem.semi_supervised,
                is_update=problem.earlier is not None,
                groups=view.groups,
                unseen=view.unseen,
                sample_weight=problem.labels.sample_weight,
                part=(number, len(views)),
            )
            for number, (view, clean) in enumerate(
                zip(views, [clean_labels, *team_labels], strict=False)
            )
        )
        models = []
        for trained in in_order(tasks, problem.n_tasks):
            models.append(trained)
            advance(1)
            if trained.cut_short:
                note_cut("self-training")
    # 3. Fit the first guess: the calibrated mixture that makes the held-out labels likeliest.
    judged = {name: collect_held_out(models, name) for name in models[0].by_name}
    first_guess = FirstGuess.fit(judged, held_out_truth(views, n_classes))
    # 4. Predict all samples of each view by the first guess.
    predicting = [delayed(first_guess.predict_proba)(trained, X, n_classes) for trained in models]
    guesses = list(rows_in_order(predicting, problem.n_tasks, problem.shape))
    return NoiseFreeStage(views, models, first_guess, guesses)
