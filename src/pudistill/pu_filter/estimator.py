"""The tiered positive-unlabeled filter: lines 1-10 of Algorithm 1 (paper, section III-A)."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from joblib import Memory, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples

from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.model_selection import deal_folds
from pudistill.labels.samples import check_features, check_samples
from pudistill.learners.cache import cached, caching_to
from pudistill.learners.capabilities import continues_training, has_trunk, with_share_of_trees
from pudistill.learners.defaults import default_learner, normalised
from pudistill.learners.linear import learns_in_blocks
from pudistill.learners.messages import user_messages
from pudistill.learners.parallel import in_order
from pudistill.pu_filter.one_class import HISTORY_COLUMNS, ClassResult, filter_class
from pudistill.pu_filter.plan import FilterInputs, Plan, make_plan
from pudistill.pu_filter.rules import DEFAULT_MIN_VOTES, DEFAULT_THRESHOLD
from pudistill.pu_filter.trunks import with_shared_trunks
from pudistill.pu_filter.voting import STOPPED_EARLY, ClassAssignment
from pudistill.utils import arrays
from pudistill.utils.progress import stage
from pudistill.utils.threads import one_thread
from pudistill.utils.time_limit import note_cut, stage_begins


class TieredPUFilter(BaseEstimator):
    """Find clean samples among noisy samples, without reading their labels.

    For each class, `n_members` binary classifiers, the members, are trained. Their positives are
    the trusted samples of the class and samples found so far. Their negatives are equally many:
    half of them trusted samples of other classes, half of them other noisy samples. A sample joins
    the augmented clean set of the class if at least `min_votes` members give it a probability of at
    least `threshold`. This is repeated `max_iter` times (paper, Algorithm 1, lines 1-10, and
    equation 3).

    Parameters
    ----------
    estimator : classifier, default=None
        Template of the members. ``None``: logistic regression for features, a
        `TorchClassifier` for pictures. Networks continue from their weights of the previous
        iteration, other estimators are fitted anew. With "auto", the members of a team share the
        trees of a random forest, or of another bagging ensemble: together they have as many.
    n_members : int, default=20
        Members per class, `N`.
    max_iter : int, default=10
        Iterations, `K`.
    threshold : float in (0, 1) or "auto", default=0.9
        Probability from which a member votes for a sample, `α`. "auto": chosen for each class, so
        that as many samples as possible are found at `target_precision`; see Notes.
    min_votes : int, float or "auto", default=0.95
        Votes that a sample needs, `θ`: a count, or a fraction of the members. "auto": chosen with
        `threshold`.
    target_precision : float in (0, 1), default=0.95
        Share of right labels that the clean set of each class should have, if `threshold` or
        `min_votes` is "auto". For a class that no rule brings there, the filter takes the laxest of
        the rules that accept no held-out trusted sample; if there is none, it adds no samples.
    tol : float or None, default=0.01
        Stop the iterations of a class when its clean set changes by at most this fraction of its
        size (with "auto": grows by at most this fraction); ``None`` runs all iterations.
    share_trunk : bool, default=False
        Whether members that are networks of the package share their layers: each team trains one
        network to classify the trusted samples that the team does not leave out, and its members
        are logistic regressions on the input of that network's last layer. This is much faster. It
        has no effect on other estimators, nor without "auto": then there are no teams, and the
        shared network would have learned the samples that the members judge.
    n_jobs : int, default=None
        Number of classes filtered at the same time or, if there are fewer classes than workers or
        the estimator is a network, of members trained at the same time; as in joblib. The result
        does not depend on it.
    memory : str or object with the joblib.Memory interface, default=None
        Cache for the result of each class, under a hash of everything it is computed from.
    random_state : int, RandomState instance or None, default=None
        Source of randomness for the members' training sets and their training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    clean_labels_ : ndarray of shape (n_samples,), int
        For each sample of the augmented clean set `P`, trusted samples included, the index of its
        class in `classes_`; -1 for all others.
    votes_ : ndarray of shape (n_samples, n_classes), int16
        Votes of the last iteration, in the teams that accept a sample; -1 where most teams do not,
        where voting stopped early, and for trusted samples. Samples verified to be of no class are
        voted on like noisy ones: their votes are here, and `history_` and `settings_` count them.
        `clean_labels_` and `team_labels_` leave them out.
    n_conflicts_ : int
        Number of samples that more than one class accepts. Each goes to the class with the highest
        mean member probability; exact ties are dropped.
    history_ : DataFrame
        For each class and iteration: ``class_name``, ``iteration``, ``n_positives`` (trusted
        samples plus `m_k`) and ``n_negatives`` (about half of them trusted: `m'_k`), both of the
        first member, ``n_clean``
        (noisy samples in the clean set), ``n_eval`` (the same in `eval_set`) and ``seconds``.
    eval_labels_ : ndarray of shape (n_eval,), int, or None
        Like `clean_labels_`, for `eval_set`; None without `eval_set`.
    n_iter_ : ndarray of shape (n_classes,), int
        Number of iterations of each class.
    settings_ : DataFrame
        For each class: ``class_name``, ``threshold`` and ``min_votes`` of the last iteration,
        ``n_members`` (the size of a team, whose votes are counted), ``precision`` (of held-out
        trusted samples, shrunk towards 0.99 as if 20 further samples had been seen; NaN if nothing
        was chosen, or the rule accepts none of these samples) and ``n_clean``.
    folds_ : ndarray of shape (n_samples,), int
        For each trusted sample, and for all samples of its group, the team of members that left it
        out; -1 for all others.
    team_labels_ : ndarray of shape (n_teams, n_samples), int
        Like `clean_labels_`, but each row is found by one team alone. Row `b` is -1 for the samples
        of fold `b` and does not depend on their labels, except through the choice of `threshold`,
        `min_votes` and the number of iterations.
    n_features_in_ : int
        Number of features.

    See Also
    --------
    PUDistillClassifier : The whole of Algorithm 1.

    Notes
    -----
    With "auto" the members form teams, each of which leaves out one fold of the trusted samples.
    The votes on that fold measure, class by class, the precision that every `α` and `θ` would have.
    A sample belongs to the clean set if more than half of the teams accept it. A single member
    forms no teams, and the paper's rule (0.9 and 0.95) is used.

    References
    ----------
    J. Xu, T. Q. S. Quek, K. F. E. Chong, "Training Classifiers that are Universally Robust to All
    Label Noise Levels", IJCNN 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from pudistill import TieredPUFilter
    >>> X, y = load_iris(return_X_y=True)
    >>> trusted = np.arange(150) % 5 == 0
    >>> pu_filter = TieredPUFilter(n_members=5, threshold=0.7, random_state=0).fit(X, y, trusted)
    >>> found = (pu_filter.clean_labels_ >= 0) & ~trusted
    >>> bool((pu_filter.clean_labels_[found] == y[found]).mean() > 0.9)
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), None],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="neither"), StrOptions({"auto"})],
        "min_votes": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="right"),
            StrOptions({"auto"}),
        ],
        "target_precision": [Interval(Real, 0, 1, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "share_trunk": ["boolean"],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "memory": [str, HasMethods(["cache"]), None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit = {"trusted": True, "groups": True}

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_members: int = 20,
        max_iter: int = 10,
        threshold: float | str = DEFAULT_THRESHOLD,
        min_votes: float | str = DEFAULT_MIN_VOTES,
        target_precision: float = 0.95,
        tol: float | None = 0.01,
        share_trunk: bool = False,
        n_jobs: int | None = None,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_members = n_members
        self.max_iter = max_iter
        self.threshold = threshold
        self.min_votes = min_votes
        self.target_precision = target_precision
        self.tol = tol
        self.share_trunk = share_trunk
        self.n_jobs = n_jobs
        self.memory = memory
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Any, y: Any, trusted: Any = None, groups: Any = None, *, eval_set: Any = None
    ) -> "TieredPUFilter":
        """Find clean samples.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures \
                of shape (n_samples, height, width[, channels])
            Samples.
        y : array-like of shape (n_samples,)
            Given labels. Only the set of classes and the labels of trusted samples are read.
        trusted : array-like of shape (n_samples,), default=None
            A boolean mask, or verified labels with a missing value elsewhere. ``None``: all labels
            are trusted, and there is nothing to find.
        groups : array-like of shape (n_samples,), default=None
            The group of each sample, such as a patient. A team that leaves out a trusted sample
            leaves out all samples of its group.
        eval_set : samples like `X`, default=None
            Further samples, which the members vote on in each iteration and never learn from.

        Returns
        -------
        self : TieredPUFilter
            The fitted filter.

        Raises
        ------
        InputError
            If a class has no trusted sample, or `min_votes` is larger than `n_members`.
        """
        X, labels = check_samples(self, X, y, trusted, [self.estimator], groups=groups)
        if eval_set is not None:
            eval_set = check_features(self, eval_set, [self.estimator], reset=False)
        with user_messages([self.estimator], labels), caching_to(self.memory):
            self.fit_checked(X, labels, eval_set)
        self.clean_labels_[labels.no_class] = MISSING  # verified to be of no class
        self.team_labels_[:, labels.no_class] = MISSING
        return self

    def fit_checked(self, X: Any, labels: Labels, eval_set: Any = None) -> "TieredPUFilter":
        """Run lines 1-10 of Algorithm 1 on checked samples.

        Parameters
        ----------
        X : samples of shape (n_samples, ...)
            As `check_samples` returns them.
        labels : Labels
            Verified labels, groups and weights; no given label is read.
        eval_set : samples of shape (n_eval, ...), default=None
            As for `fit`.

        Returns
        -------
        self : TieredPUFilter
            The fitted filter.
        """
        classes, verified = labels.classes, labels.verified
        noisy = np.flatnonzero(verified == MISSING)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        plan = make_plan(
            n_members=self.n_members,
            # Where nothing or everything is verified, there is nothing to find.
            max_iter=self.max_iter if 0 < len(noisy) < len(verified) else 0,
            threshold=self.threshold,
            min_votes=self.min_votes,
            target_precision=self.target_precision,
            tol=self.tol,
            seed=seed,
        )
        self.classes_ = classes
        dealt = np.where(labels.drawn, verified, MISSING)
        self.folds_ = deal_folds(dealt, plan.n_teams, seed, labels.groups)
        self.votes_ = arrays.empty((len(verified), len(classes)), np.int16)
        self.votes_[:] = STOPPED_EARLY
        found = ClassAssignment(len(noisy))
        team_found = [ClassAssignment(len(noisy)) for _ in plan.teams]
        eval_found = ClassAssignment(0 if eval_set is None else _num_samples(eval_set))
        rules, histories = [], []

        # Lines 1-8, class by class. Each result is added up and dropped: with many samples and
        # classes, all results together would take more memory than everything else.
        inputs = self._inputs(X, labels, eval_set, plan)
        for c, result in enumerate(self._filter_classes(inputs, len(classes))):
            self.votes_[noisy, c] = result.votes
            found.add_class(result.mean_proba)
            eval_found.add_class(result.eval_mean_proba)
            for assignment, mean_proba in zip(team_found, result.team_mean_proba, strict=True):
                assignment.add_class(mean_proba)
            rules.append(result.rule)
            histories.append(result.history)

        # Lines 9-10: P holds the trusted samples and the samples found, each in one class.
        self.clean_labels_ = verified.copy()
        self.clean_labels_[noisy], self.n_conflicts_ = found.resolve()
        self.team_labels_ = arrays.empty((plan.n_teams, len(verified)), verified.dtype)
        self.team_labels_[:] = verified
        for team, found_by_team in enumerate(self.team_labels_):
            found_by_team[noisy], _ = team_found[team].resolve()
            found_by_team[self.folds_ == team] = MISSING
        self.eval_labels_ = None if eval_set is None else eval_found.resolve()[0]

        # Records of rules and iterations.
        self.n_iter_ = np.array([len(history) for history in histories])
        self.history_ = _history_table(classes, histories)
        self.settings_ = _settings_table(classes, rules, plan, self.clean_labels_[noisy])
        return self

    def _inputs(self, X: Any, labels: Labels, eval_set: Any, plan: Plan) -> FilterInputs:
        """Collect what the filters of all classes have in common."""
        if self.estimator is None:
            estimator = default_learner(X, encoded=self.encoder_ is not None)
        else:
            estimator = normalised(self.estimator, X)
        if plan.n_teams > 1:
            estimator = with_share_of_trees(estimator, len(plan.teams[0]))
        eval_views = [] if eval_set is None else [eval_set]
        inputs = FilterInputs(
            [X],
            eval_views,
            labels.verified,
            self.folds_,
            estimator,
            plan,
            labels.drawn,
            labels.classes,
            labels.groups,
            labels.sample_weight,
        )
        shares_trunk = self.share_trunk and plan.n_teams > 1 and has_trunk(estimator)
        if shares_trunk and plan.max_iter:
            return with_shared_trunks(inputs, self.n_jobs)
        return inputs

    def _filter_classes(self, inputs: FilterInputs, n_classes: int) -> Iterator[ClassResult]:
        """Filter one class after the other, or several at the same time (the loop of line 1)."""
        cached_filter = cached(filter_class, ignore=["n_jobs", "advance", "checkpoint"])
        n_steps = inputs.plan.max_iter * inputs.plan.n_members
        # With enough classes for all workers, no worker waits for the slowest member. Networks are
        # trained one class at a time: each takes so long that users want to see its progress.
        in_parallel = not continues_training(inputs.estimator) and (
            1 < effective_n_jobs(self.n_jobs) <= n_classes
        )
        stage_begins()
        with stage("filter", n_classes * n_steps) as advance:
            if in_parallel:
                tasks = (delayed(cached_filter)(c, inputs) for c in range(n_classes))
                # Fits of a few samples are quick, and votes are large products: threads share them
                # without workers to start.
                linear = learns_in_blocks(inputs.estimator, inputs.views[0])
                results = in_order(tasks, self.n_jobs, prefer="threads" if linear else None)
            else:
                results = (
                    _on_one_thread(cached_filter, c, inputs, self.n_jobs, advance)
                    for c in range(n_classes)
                )
            for n_done, result in enumerate(results, start=1):
                advance(to=n_done * n_steps)
                if result.cut_short:
                    note_cut("the filter")
                yield result


def _on_one_thread(function: Callable, *args: Any) -> Any:
    """Call a function as a worker process would, so that results do not depend on `n_jobs`."""
    with one_thread():
        return function(*args)


def _settings_table(
    classes: np.ndarray, rules: Sequence[np.ndarray], plan: Plan, found: np.ndarray
) -> pd.DataFrame:
    """Put the rules of all classes, each an array with the fields of a `Rule`, into one table."""
    return pd.DataFrame(
        {
            "class_name": classes,
            "threshold": [float(rule[0]) for rule in rules],
            "min_votes": [int(rule[1]) for rule in rules],
            "n_members": len(plan.teams[0]),
            "precision": [float(rule[2]) for rule in rules],
            "n_clean": np.bincount(found + 1, minlength=len(classes) + 1)[1:],
        }
    )


def _history_table(classes: np.ndarray, histories: Sequence[np.ndarray]) -> pd.DataFrame:
    """Put the histories of all classes into one table."""
    table = pd.DataFrame(np.concatenate(histories), columns=HISTORY_COLUMNS)
    table = table.astype(dict.fromkeys(HISTORY_COLUMNS[:-1], int))
    table.insert(0, "class_name", np.repeat(classes, list(map(len, histories))))
    return table
