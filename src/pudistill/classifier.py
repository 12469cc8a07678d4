"""`PUDistillClassifier`: Algorithm 1 of the paper, in its own and in the default variant."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from joblib import Memory
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from pudistill.data.names import NO_CLASS_LABEL
from pudistill.distillation.certified_labels import JudgesLabels
from pudistill.distillation.class_accuracy import warn_of_harm
from pudistill.distillation.comparison import Comparison, ExpectedAccuracy, LabelAccuracy
from pudistill.distillation.correction import predictions_for
from pudistill.distillation.earlier_fit import EarlierFit
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.distillation.metrics import METRICS
from pudistill.distillation.noise_estimate import NOTHING, NoiseEstimate
from pudistill.distillation.noise_free_models import NoiseFreeStage, teach
from pudistill.distillation.paper import MakesPseudoLabels, paper_student, paper_teachers
from pudistill.distillation.problem import Problem
from pudistill.distillation.roles import FILTER, STUDENT, TEACHER, HasRoles
from pudistill.distillation.shipping import learn_and_ship
from pudistill.distillation.shown_results import ShowsResults
from pudistill.distillation.time_estimate import Work
from pudistill.distillation.timing import TimedFit
from pudistill.distillation.transition import checked_transition_matrix
from pudistill.exceptions import InputError
from pudistill.labels.alignment import index_of
from pudistill.labels.checks import NO_TRUSTED, Labels, check_same_labels
from pudistill.labels.pseudo_labels import LABEL_TYPES
from pudistill.labels.samples import check_features, check_samples, is_pictures, split_off_no_class
from pudistill.labels.table import Outliers, label_table
from pudistill.learners.base import NoisyLabelClassifier
from pudistill.learners.cache import caching_to
from pudistill.learners.messages import user_messages
from pudistill.learners.parts import dealing
from pudistill.learners.probabilities import check_can_be_calibrated
from pudistill.pu_filter.estimator import TieredPUFilter
from pudistill.utils.displays import showing

# Attributes that `PUDistillClassifier._fit_student` sets.
OF_DEFAULT_METHOD = (
    *("noise_", "comparison_", "shipped_", "expected_accuracy_", "adapted_"),
    *("held_out_labels_", "label_accuracy_", "cross_fitted_proba_", "held_out_proba_", "folds_"),
)
LEARNED_BY_STUDENT = ("student_", "targets_", "label_arrays_", "label_table_", *OF_DEFAULT_METHOD)


class PUDistillClassifier(
    ShowsResults, TimedFit, HasRoles, JudgesLabels, MakesPseudoLabels, NoisyLabelClassifier
):
    """Learn from noisy labels with the help of a few trusted labels.

    A tiered positive-unlabeled filter finds clean samples among noisy samples without reading
    their labels, teachers learn from the clean samples, and a student learns from all samples
    (paper, Algorithm 1). The two methods differ in the student's targets for noisy samples; see
    Notes.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier, used where the next three are None. ``None``:
        logistic regression on scaled features, a `TorchClassifier` for pictures. A classifier that
        takes no sample weights learns one label per sample, drawn from its pseudo-label.
    filter_estimator, teacher, student : classifier, default=None
        Templates of the filter's members, the teachers and the student. ``None``: `estimator`.
    method : {"default", "paper"}, default="default"
        ``"paper"``: Algorithm 1 as it is written, with `min_confidence`, `blend` and `label_type`.
        ``"default"``: the same settings for every noise level; these three are not used.
    n_members : int, default=20
        Members of the filter per class, `N`. The default method uses at most five with 129 classes
        or more, and at most ten with 400 trusted samples per class or more.
    max_iter : int, default=10
        Iterations of the filter, `K`.
    threshold : float in (0, 1) or "auto", default="auto"
        Probability from which a member votes for a sample, `α`. "auto": 0.9 for the paper's
        method, else chosen for each class, see `TieredPUFilter`.
    min_votes : int, float or "auto", default="auto"
        Votes that a sample needs, `θ`: a count, or a fraction of `n_members`. "auto": 0.95 for the
        paper's method, else chosen for each class.
    target_precision : float in (0, 1), default=0.95
        Precision of each class's clean set that the filter aims at where `threshold` or
        `min_votes` is "auto".
    min_confidence : float in [0, 1], default=0.7
        From this probability pseudo-labels follow teachers, `η`. Paper's method, as the next two.
    blend : float in [0, 1], default=0.5
        Weight of the teachers in a pseudo-label, `λ`.
    label_type : {"soft_bootstrap", "hard_bootstrap", "hard_label"}, default="soft_bootstrap"
        The kind of pseudo-label: equations 4 and 5, their hard variant, or equation 6.
    n_teachers : int or "auto", default="auto"
        Number of teachers, `N_t`. "auto": one, trained on the whole clean set; with the paper's
        method five, trained on balanced subsets, if the clean set is not balanced.
    transition_matrix : array-like of shape (n_classes, n_classes), default=None
        ``T[c, j] = P(given = j | true = c)``, if it is known. Default method only, as the next two.
    compare : bool, default=True
        Whether to hold out trusted samples, fold by fold, to compare the student with simpler
        models, ship the best model and estimate its accuracy. Takes several times as long.
    metric : {"accuracy", "balanced_accuracy", "f1_macro", "neg_log_loss"}, default="accuracy"
        What decides which model is best; `expected_accuracy_` is its expected value.
    single_model : bool, default=False
        Whether to distil a mixture that would be shipped into one model, which can be exported.
        Default method only.
    tol : float or None, default=0.01
        Stop the filter for a class when its clean set changes by at most this fraction of its
        size, or, with "auto", grows by at most this fraction; ``None`` runs all iterations, as in
        the paper.
    share_trunk : bool or "auto", default="auto"
        Whether members of the filter that are networks share their layers, see
        :class:`TieredPUFilter`. "auto": only with the default method.
    semi_supervised : bool, default=False
        Whether networks that learn pictures are first trained without any noisy label, on trusted
        and unlabelled pictures. That is a candidate that no noise can mislead, from which the
        networks start that read given labels. Default method only.
    warm_start : bool, default=False
        Whether `fit` starts from what the last fit, or the run that `pudistill.load` read, has
        learned from the same samples, some of which have been verified since. It takes a
        quarter to half of the time. New samples may follow at the end. Default method only.
    no_class_label : str, int or None, default="none of these"
        The verified label of samples that are of no class. These samples are in no training. They
        only teach `label_table_` which other samples are unlike those of every class.
    time_limit : float, str or None, default=None
        Seconds that `fit` may take, or a text such as "10m". Filter, self-training and rounds end
        early then, and there is no comparison if there is no time for it; the result depends on
        the machine's speed.
    n_jobs : int, default=None
        Number of models trained at the same time, as in joblib.
    memory : str or object with the joblib.Memory interface, default=None
        Cache for the results of long computations, under a hash of all their inputs.
    random_state : int, RandomState instance or None, default=None
        Source of randomness; with an int, two fits on CPU are identical.
    verbose : bool or int, default=False
        Whether `fit` shows its progress: bars in a notebook or a terminal, else a line for each
        finished stage on stderr. The result does not depend on it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted, of their type; texts after `load` of a run of the command line.
    filter_ : TieredPUFilter
        The filter, with votes, clean set and history.
    teachers_ : list of fitted estimators
        Teachers, for classes 0 … C - 1; empty if all samples are trusted, none is, or the filter
        found no sample. Then `teacher_proba_` is that of a model of the trusted samples, or the
        votes of the sources.
    teacher_proba_ : ndarray of shape (n_noisy, n_classes)
        The teachers' average prediction for the noisy samples, `f_t`.
    targets_ : ndarray of shape (n_samples, n_classes)
        Targets of the student: verified labels of trusted samples, pseudo-labels of all others.
        This attribute, `teacher_proba_` and those of `filter_` lack samples verified to be of no
        class.
    student_ : fitted estimator
        The model that `predict` uses: the student, or the candidate that is shipped instead.
    noise_ : NoiseEstimate or None
        Noise in the given labels: ``transition_matrix``, ``rate``, ``class_rate`` and their
        intervals. Outliers are left out, because none of their labels can be right. This attribute
        and those up to `adapted_` are of the default method; they are None if `method` is "paper"
        or all samples are trusted.
    comparison_ : Comparison or None
        Results of the candidates on held-out trusted samples, the choice, and the reason for it.
    shipped_ : str or None
        Name of the candidate in `comparison_` that `student_` is; "mixture" combines several.
    expected_accuracy_ : ExpectedAccuracy or None
        ``value`` of the `metric` on new samples, ``interval`` (95 %), ``n`` and ``metric``; None
        without `compare`, if no trusted sample could be held out, or if `single_model` has replaced
        a mixture.
    label_accuracy_ : LabelAccuracy or None
        The accuracy of the corrected labels of the samples that nobody verified, likewise.
    held_out_labels_ : HeldOutLabels or None
        What `certify` judges by.
    cross_fitted_proba_, held_out_proba_, folds_ : see `correct_labels`, or None
        Predictions of each sample by models that have not seen its given label; the same, for each
        fold, by models that have not seen its verified labels; the fold of each verified sample.
        Like `targets_`, without samples verified to be of no class.
    adapted_ : dict of str to float, or None
        Values of the quantities that adapt to the data, such as weights in the mixtures.
    label_table_ : DataFrame
        A row per sample: ``given``, ``trusted`` (verified, or an exact copy of a verified sample),
        ``label`` (the corrected label), ``changed``, ``source`` ("trusted", "filter", "teacher",
        "student" or "given"), ``confidence`` (probability of `label`; 1 if trusted),
        ``given_quality`` (probability that `given` is right: sort by it to find wrong labels),
        ``votes`` (of the filter's members for `label`; missing if not accepted),
        ``outlier_score`` and ``outlier`` (how unlike the trusted samples of every class it is, see
        `find_outliers`; the confidence of outliers is at most 0.1).
    n_iter_ : int
        Largest number of iterations of the filter for a class; 1 if there was nothing to filter.
    cut_short_ : list of str
        What `time_limit` cut short.
    n_features_in_ : int
        Number of features.

    See Also
    --------
    TieredPUFilter : Lines 1-10 alone.

    Notes
    -----
    The default method estimates the transition matrix `T` by maximum likelihood under calibrated
    predictions, combines given labels and predictions by Bayes' rule, trains a student on the
    result, and repeats this with the student's cross-fitted predictions. A network does the same in
    one training, whose loss is the negative log-likelihood of the given labels. The models that
    read no noisy label (filter, teachers, a model of the trusted samples) only make the first
    guess.

    References
    ----------
    J. Xu, T. Q. S. Quek, K. F. E. Chong, "Training Classifiers that are Universally Robust to All
    Label Noise Levels", IJCNN 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill import PUDistillClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> given = np.where(trusted, y, (y + (np.arange(178) % 2)) % 3)  # half are wrong
    >>> classifier = PUDistillClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> classifier.score(X, y) > 0.9, classifier.noise_.rate > 0.3
    (True, True)
    """

    _parameter_constraints: dict = {
        **TieredPUFilter._parameter_constraints,
        "method": [StrOptions({"default", "paper"})],
        "filter_estimator": [HasMethods(["fit"]), None],
        "teacher": [HasMethods(["fit"]), None],
        "student": [HasMethods(["fit"]), None],
        "min_confidence": [Interval(Real, 0, 1, closed="both")],
        "blend": [Interval(Real, 0, 1, closed="both")],
        "label_type": [StrOptions(set(LABEL_TYPES))],
        "n_teachers": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "transition_matrix": ["array-like", None],
        "compare": ["boolean"],
        "metric": [StrOptions(set(METRICS))],
        "single_model": ["boolean"],
        "share_trunk": ["boolean", StrOptions({"auto"})],
        "semi_supervised": ["boolean"],
        "warm_start": ["boolean"],
        "no_class_label": [str, Real, None],
        "time_limit": [Real, str, None],
        "verbose": ["verbose"],
    }
    __metadata_request__fit = {
        "trusted": True,
        "groups": True,
        "noise_groups": True,
        "draw_weight": True,
    }
    _model_name = "student_"
    teachers_: list
    targets_: np.ndarray
    student_: Any
    noise_: NoiseEstimate | None
    comparison_: Comparison | None
    shipped_: str | None
    expected_accuracy_: ExpectedAccuracy | None
    label_accuracy_: LabelAccuracy | None
    held_out_labels_: HeldOutLabels | None
    cross_fitted_proba_: np.ndarray | None
    held_out_proba_: list[np.ndarray] | None
    folds_: np.ndarray | None
    adapted_: dict[str, float] | None
    _noise_free: NoiseFreeStage | None
    _earlier: EarlierFit | None = None

    def __init__(
        self,
        estimator: Any = None,
        *,
        filter_estimator: Any = None,
        teacher: Any = None,
        student: Any = None,
        method: str = "default",
        n_members: int = 20,
        max_iter: int = 10,
        threshold: float | str = "auto",
        min_votes: float | str = "auto",
        target_precision: float = 0.95,
        min_confidence: float = 0.7,
        blend: float = 0.5,
        label_type: str = "soft_bootstrap",
        n_teachers: int | str = "auto",
        transition_matrix: Any = None,
        compare: bool = True,
        metric: str = "accuracy",
        single_model: bool = False,
        tol: float | None = 0.01,
        share_trunk: bool | str = "auto",
        semi_supervised: bool = False,
        warm_start: bool = False,
        no_class_label: str | int | None = NO_CLASS_LABEL,
        time_limit: float | str | None = None,
        n_jobs: int | None = None,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.estimator = estimator
        self.filter_estimator = filter_estimator
        self.teacher = teacher
        self.student = student
        self.method = method
        self.n_members = n_members
        self.max_iter = max_iter
        self.threshold = threshold
        self.min_votes = min_votes
        self.target_precision = target_precision
        self.min_confidence = min_confidence
        self.blend = blend
        self.label_type = label_type
        self.n_teachers = n_teachers
        self.transition_matrix = transition_matrix
        self.compare = compare
        self.metric = metric
        self.single_model = single_model
        self.tol = tol
        self.share_trunk = share_trunk
        self.semi_supervised = semi_supervised
        self.warm_start = warm_start
        self.no_class_label = no_class_label
        self.time_limit = time_limit
        self.n_jobs = n_jobs
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        y: Any,
        trusted: Any = None,
        groups: Any = None,
        *,
        noise_groups: Any = None,
        sample_weight: Any = None,
        pred_probs: Any = None,
        draw_weight: Any = None,
    ) -> "PUDistillClassifier":
        """Run Algorithm 1.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), texts \
                (sequence of str), or pictures of shape (n_samples, height, width[, channels])
            Samples of `D`.
        y : array-like of shape (n_samples,) or (n_samples, n_sources), or Annotations
            Given labels; a missing value (NaN, None, NA) where a sample has none. A Series is
            aligned with the index of `X`, as are the next two. A column for each source where
            several, such as people or rules, label samples: see docs/guides/sources.md.
        trusted : array-like of shape (n_samples,), Series or dict, default=None
            The labels that are known to be right: a boolean mask, or the verified labels with a
            missing value for samples that are not verified, and `no_class_label` for samples that
            are of no class. ``None``: all labels, with a warning; with several sources none. A
            Series or dict may hold verified samples only, by index or row number. Exact copies of a
            sample have its verified label, too, see `pudistill.labels.copies`.
        groups : array-like of shape (n_samples,), default=None
            The source of each sample, such as a patient or a video, if several samples come from
            one. No fold splits a group, so that `expected_accuracy_` is that of new sources.
        noise_groups : array-like of shape (n_samples,), default=None
            Groups whose given labels can have noise of their own, such as annotators, months or
            sources. Each has a transition matrix, which leans on that of all samples.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each sample counts in the training of members, teachers, students and the
            models that they are compared with; only ratios matter. A learner that takes no weights
            ignores them. They change no count: votes, noise, calibration and accuracies are those
            of the samples as they are.
        pred_probs : array-like or DataFrame of shape (n_samples, n_classes), default=None
            Predictions of your own model for these samples, as for `correct_labels`. They join the
            first guess, and so improve the labels; `predict` does without them.
        draw_weight : array-like of shape (n_samples,), Series or dict, default=None
            How verified samples were drawn, if not all uniformly: ``1 / (N p)``, where the draw of
            a sample took it with probability `p` from the `N` that were not verified then. A Series
            or dict has them in the order of drawing. Estimates, comparisons and certificates use
            them, trainings do not; see docs/guides/next.md. 0: it was picked by hand,
            and counts in no estimate.

        Returns
        -------
        self : PUDistillClassifier
            The fitted classifier.

        Raises
        ------
        InputError
            If no sample is trusted, a class has no trusted sample, `trusted` is ambiguous, an index
            cannot be aligned, exact copies are verified differently, a `sample_weight` is not above
            0, or a `draw_weight` is negative.
        """
        names, weights = index_of(X), {"sample_weight": sample_weight, "draw_weight": draw_weight}
        options = {"groups": groups, "noise_groups": noise_groups, **weights}
        X, labels = check_samples(self, X, y, trusted, self._learners(), **options)
        own_proba = predictions_for(labels, pred_probs, names, self.method)
        with self._at_work(labels), self._in_time(X, labels):
            self._fit_teachers(X, labels)  # lines 1-12
            return self._fit_student(X, labels, names, own_proba)  # lines 13-15

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_teachers(
        self,
        X: Any,
        y: Any,
        trusted: Any = None,
        groups: Any = None,
        *,
        sample_weight: Any = None,
        draw_weight: Any = None,
        eval_set: Any = None,
    ) -> "PUDistillClassifier":
        """Run lines 1-12 of Algorithm 1: grow the clean set, train the teachers.

        No given label of a noisy sample is read: `fit_student` can follow with any given labels.
        Parameters and result are those of `fit`; `eval_set` is that of `TieredPUFilter.fit`.
        """
        weights = {"sample_weight": sample_weight, "draw_weight": draw_weight}
        X, labels = check_samples(self, X, y, trusted, self._learners(), groups=groups, **weights)
        if eval_set is not None:
            eval_set = check_features(self, eval_set, self._learners(), reset=False)
        with self._at_work(labels):
            return self._fit_teachers(X, labels, eval_set)

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_student(
        self,
        X: Any,
        y: Any,
        trusted: Any = None,
        groups: Any = None,
        *,
        noise_groups: Any = None,
        sample_weight: Any = None,
        pred_probs: Any = None,
        draw_weight: Any = None,
    ) -> "PUDistillClassifier":
        """Run lines 13-15 of Algorithm 1, with the teachers of the last `fit_teachers`.

        Parameters and result are those of `fit`. Samples, verified labels and groups must be those
        that the teachers were fitted with; given labels of noisy samples can differ.
        """
        check_is_fitted(self, "teachers_")
        names, weights = index_of(X), {"sample_weight": sample_weight, "draw_weight": draw_weight}
        options = {"groups": groups, "noise_groups": noise_groups, **weights, "reset": False}
        X, labels = check_samples(self, X, y, trusted, self._learners(), **options)
        own_proba = predictions_for(labels, pred_probs, names, self.method)
        with self._at_work(labels):
            return self._fit_student(X, labels, names, own_proba)

    # Algorithm 1 on checked samples; line numbers are the paper's.

    def _fit_teachers(self, X: Any, labels: Labels, eval_set: Any = None) -> "PUDistillClassifier":
        """Run lines 1-12 of Algorithm 1."""
        checked_transition_matrix(self.transition_matrix, labels.n_classes)  # before long work
        self._earlier = EarlierFit.of(self, labels) if self._is_update else None
        self.classes_, self._fitted_labels = labels.classes, labels
        X, labels, _ = split_off_no_class(X, labels)
        filter_seed, teacher_seed = self._prepare(X, labels)
        # Lines 1-10: the filter grows the augmented clean set P, class by class.
        if self._earlier is not None:
            self._noise_free_c = None if is_pictures(X) else self._earlier.C_of_noise_free_models
            self.student_seed_ = self._earlier.seed
            self.filter_ = self._earlier.filter_with(labels, filter_seed)
        else:
            self._choose_regularisation(X, labels, teacher_seed)
            found = self._new_filter(X, labels, filter_seed)
            self.filter_ = found.fit_checked(X, labels, eval_set)
        self.n_iter_ = max(1, self.filter_.n_iter_.max())
        # Lines 11-12: the teachers learn from P, and predict the noisy samples.
        if self.method == "paper" and not labels.trusted.any():
            raise InputError(NO_TRUSTED)
        if labels.trusted.all():  # the student will learn verified labels only
            self.teachers_, self.teacher_proba_ = [], np.zeros((0, labels.n_classes))
        elif self.method == "paper":
            problem = Problem(X, labels, self._learner(TEACHER, X), self.n_jobs, teacher_seed)
            trained = paper_teachers(problem, self.filter_.clean_labels_, self.n_teachers)
            self.teachers_, self.teacher_proba_ = trained
        else:
            self.teachers_, self.teacher_proba_ = self._default_teachers(X, labels, teacher_seed)
        return self

    def _fit_student(
        self, X: Any, labels: Labels, index: pd.Index | None, own: np.ndarray | None
    ) -> "PUDistillClassifier":
        """Run lines 13-15 of Algorithm 1."""
        check_same_labels(labels, self._fitted_labels)
        all_labels, own = labels, None if own is None else own[~labels.no_class]
        X, labels, no_class = split_off_no_class(X, labels)
        if self.method == "default" and not labels.trusted.all():
            # Lines 13-15, with posterior labels in place of pseudo-labels: see `learn_and_ship`.
            outliers = self._learn_and_ship(X, labels, no_class, own)
            is_known = self.noise_ is not None and self.noise_.basis != NOTHING
            votes = self.filter_.votes_
            table = label_table(labels, self.targets_, votes, outliers, is_known=is_known)
        else:
            # Line 13: pseudo-labels blend given labels and the teachers' predictions.
            self.targets_ = self._pseudo_labels(labels)
            problem = Problem(X, labels, self._learner(STUDENT, X), None, self.student_seed_)
            of_filter = self.filter_, self.teacher_proba_, self.min_confidence
            self.student_, table = paper_student(problem, self.targets_, *of_filter, no_class)
            self.__dict__.update(dict.fromkeys(OF_DEFAULT_METHOD))
        if self.held_out_labels_ is not None:
            self.held_out_labels_ = self.held_out_labels_.with_no_class(all_labels)
        table = table.with_no_class(all_labels, self.no_class_label)
        self.label_arrays_ = replace(table, index=index)
        warn_of_harm(self.class_accuracy_)
        self.__dict__.pop("label_table_", None)
        return self

    @contextmanager
    def _at_work(self, labels: Labels) -> Iterator[None]:
        watched = user_messages(self._learners(), labels)
        with watched, caching_to(self.memory), dealing(self.n_jobs), showing(self.verbose):
            yield

    def _work(self, X: Any, labels: Labels) -> Work:
        member, student = self._learner(FILTER, X), self._learner(STUDENT, X)
        return Work(X, labels, member, student, self.get_params(deep=False))

    # The steps, and what they check.

    def _prepare(self, X: Any, labels: Labels) -> tuple[int, int]:
        """Forget an earlier fit, check the learners; return the seeds of filter and teachers."""
        for name in LEARNED_BY_STUDENT:
            self.__dict__.pop(name, None)
        self._noise_free = self._noise_free_c = None
        self.cut_short_ = []
        self.fitted_on_frame_ = isinstance(X, pd.DataFrame)
        for role in (FILTER, TEACHER, STUDENT):
            check_can_be_calibrated(self._learner(role, X), labels)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=3).tolist()
        filter_seed, teacher_seed, self.student_seed_ = seeds
        return filter_seed, teacher_seed

    def _default_teachers(self, X: Any, labels: Labels, seed: int) -> tuple[list, np.ndarray]:
        """Train all models that read no noisy label; return the teachers and their predictions."""
        student = self._learner(STUDENT, X, reads_noisy_labels=False)
        problem = Problem(
            X,
            labels,
            student,
            self.n_jobs,
            seed,
            semi_supervised=self.semi_supervised,
            earlier=self._earlier,
        )
        self._noise_free, teachers, proba = teach(
            problem,
            self.filter_,
            teacher=self._learner(TEACHER, X),
            n_teachers=self.n_teachers,
            compare=self._affords_comparison(),
        )
        return teachers, proba

    def _learn_and_ship(
        self, X: Any, labels: Labels, no_class: Any, own_proba: np.ndarray | None
    ) -> Outliers:
        """Run `learn_and_ship`, set the attributes that it decides, and return the outliers."""
        if self._noise_free is None:
            raise InputError(
                'The teachers were fitted with method="paper": call fit_teachers again for '
                'method="default".'
            )
        outcome = learn_and_ship(
            Problem(
                X,
                labels,
                self._learner(STUDENT, X),
                self.n_jobs,
                self.student_seed_,
                tunes_student=self._noise_free_c is not None and self._learners()[STUDENT] is None,
                metric=self.metric,
                single_model=self.single_model,
                own_proba=own_proba,
                earlier=self._earlier,
            ),
            self._noise_free,
            transition_matrix=checked_transition_matrix(self.transition_matrix, labels.n_classes),
            no_class=no_class,
        )
        # The shipped model stands in the student's place: it can also be a mixture or a teacher.
        self.targets_, self.student_ = outcome.student_fit.targets, outcome.model
        self.noise_, self.adapted_ = outcome.noise, outcome.adapted
        if self._noise_free_c is not None:
            self.adapted_["C_of_noise_free_models"] = self._noise_free_c
        self.comparison_, self.shipped_ = outcome.comparison, outcome.comparison.shipped
        self.expected_accuracy_ = outcome.comparison.expected_accuracy
        self.held_out_labels_ = outcome.held_out_labels
        self.label_accuracy_ = outcome.label_accuracy
        self.cross_fitted_proba_, *self.held_out_proba_ = outcome.student_fit.probas
        self.folds_ = outcome.folds
        return outcome.outliers
