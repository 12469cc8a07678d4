"""The tiered positive-unlabeled filter: lines 1-10 of Algorithm 1 (paper, section III-A)."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Memory, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples

from pudistill import learners, rowwise
from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.learners.linear import affine_map, probabilities
from pudistill.model_selection import deal_folds
from pudistill.progress import Advance, ignore, stage
from pudistill.pseudo_labels import one_hot
from pudistill.units import NOWHERE, Checkpoint, keeping, kept
from pudistill.validation import MISSING, check_features, check_samples
from pudistill.workers import one_thread

STOPPED_EARLY = -1
DEFAULT_THRESHOLD, DEFAULT_MIN_VOTES = 0.9, 0.95  # the paper's, section IV-C
# What "auto" chooses from: `α`, and `θ` as a share of a team.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
VOTE_SHARES = (0.5, 0.75, 1.0)
N_TEAMS = 5
# What is known of a rule's precision before any sample was seen: as if from so many samples. With
# a few trusted samples a class one mistake is no proof; with hundreds the samples decide.
PRIOR_PRECISION, PRIOR_SAMPLES = 0.99, 20


class TieredPUFilter(BaseEstimator):
    """Grow a clean set out of samples whose labels are not read.

    For each class, `n_members` binary classifiers learn the trusted samples of the class, and
    samples already found, against as many trusted samples of other classes and unlabeled ones; a
    sample joins the augmented clean set of the class when at least `min_votes` members give it a
    probability of at least `threshold`. This repeats `max_iter` times (paper, Algorithm 1, lines
    1-10, and equation 3). Given labels of noisy samples are never read.

    Parameters
    ----------
    estimator : classifier, default=None
        What the members are. ``None``: logistic regression for features, a `TorchClassifier` for
        pictures. Networks continue from their weights of the previous iteration, other estimators
        are fitted anew.
    n_members : int, default=20
        Members per class, `N`.
    max_iter : int, default=10
        Iterations, `K`.
    threshold : float in (0, 1) or "auto", default=0.9
        A member votes for a sample from this probability on, `α`. "auto": chosen for each class, so
        that `target_precision` is reached with as many samples as possible; see Notes.
    min_votes : int, float or "auto", default=0.95
        Votes that a sample needs, `θ`: a count, or a fraction of the members. "auto": chosen with
        `threshold`.
    target_precision : float in (0, 1), default=0.95
        Share of right labels that the clean set of each class is to have, where `threshold` or
        `min_votes` is "auto". A class that cannot reach it adds no samples.
    tol : float or None, default=0.01
        Stop a class when its clean set changes by at most this fraction of its size, or, where the
        rule is "auto", grows by no more; ``None`` runs all iterations.
    share_trunk : bool, default=False
        Whether members that are networks of the project share their layers: each team trains one
        network to tell the classes of the trusted samples it may see, and its members are logistic
        regressions on what that network's last layer is given. Much faster. It changes nothing for
        other learners, and where the rule is given: there are no teams, and members would tell
        samples that their trunk has learned from others.
    n_jobs : int, default=None
        Classes filtered at the same time, or, where these are fewer and with networks, members
        fitted; as in joblib. The result does not depend on it.
    memory : str or object with the joblib.Memory interface, default=None
        Where to keep the result of each class, keyed by all that it is computed from.
    random_state : int, RandomState instance or None, default=None
        Decides the members' samples and their training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    clean_labels_ : ndarray of shape (n_samples,), int
        For each sample of the augmented clean set `P`, trusted ones included, the index of its
        class in `classes_`; -1 for all others.
    votes_ : ndarray of shape (n_samples, n_classes), int16
        Votes of the last iteration; -1 where voting stopped early, and for trusted samples.
    n_conflicts_ : int
        Samples claimed by more than one class. They go to the class with the highest mean member
        probability; exact ties are dropped.
    history_ : DataFrame
        For each class and iteration: ``class_name``, ``iteration``, ``n_positives`` (trusted
        samples plus `m_k`), ``n_negatives`` (about half of them trusted: `m'_k`), ``n_clean``
        (size of the clean set), ``n_eval`` (the same in `eval_set`) and ``seconds``.
    eval_labels_ : ndarray of shape (n_eval,), int
        As `clean_labels_`, for `eval_set`.
    n_iter_ : ndarray of shape (n_classes,), int
        Iterations that each class took.
    settings_ : DataFrame
        For each class: ``class_name``, ``threshold`` and ``min_votes`` as they were used in the
        last iteration, ``n_members`` that these votes are out of, ``precision`` (measured on
        trusted samples; NaN where nothing was chosen, no rule reached the target, or the rule
        elected none of them) and ``n_clean``.
    folds_ : ndarray of shape (n_samples,), int
        Which team of members each trusted sample was hidden from; -1 for all others.
    team_labels_ : ndarray of shape (n_teams, n_samples), int
        As `clean_labels_`, found by one team alone. Nothing in row `b` depends on the labels of the
        trusted samples of fold `b`, which are -1 there (but for the choice of `threshold`,
        `min_votes` and the number of iterations).
    n_features_in_ : int
        Number of features.

    Notes
    -----
    Where settings are "auto" the members form teams, each blind to one fold of the trusted samples.
    Their votes on that fold say which precision and recall every `α` and `θ` would have, class by
    class. A sample belongs to the clean set if more than half of the teams elect it. With fewer
    than two members there are no teams, and the defaults hold.

    See Also
    --------
    PUDistillClassifier : The whole of Algorithm 1.

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
        "n_jobs": [Integral, None],
        "memory": [str, HasMethods(["cache"]), None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit = {"trusted": True}

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
    def fit(self, X: Any, y: Any, trusted: Any = None, *, eval_set: Any = None) -> "TieredPUFilter":
        """Find clean samples.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures \
                of shape (n_samples, height, width[, channels])
            Samples.
        y : array-like of shape (n_samples,)
            Given labels. Only those of trusted samples are read, and the set of classes.
        trusted : array-like of shape (n_samples,), default=None
            A boolean mask, or verified labels with a missing value elsewhere. ``None``: all labels
            are trusted and there is nothing to find.
        eval_set : samples as `X`, default=None
            Further samples for the members of each iteration to vote on, which are not kept.

        Returns
        -------
        self : TieredPUFilter
            The fitted filter.

        Raises
        ------
        InputError
            If a class has no trusted sample, or more votes are asked for than there are members.
        """
        X, labels = check_samples(self, X, y, trusted, [self.estimator])
        if eval_set is not None:
            eval_set = check_features(self, eval_set, [self.estimator], reset=False)
        with keeping(self.memory):
            return self._fit_checked(X, labels.classes, labels.verified, eval_set)

    def _fit_checked(
        self, X: Any, classes: np.ndarray, verified: np.ndarray, eval_set: Any = None
    ) -> "TieredPUFilter":
        """Filter on checked samples; `verified` holds codes, -1 for noisy samples."""
        noisy = np.flatnonzero(verified == MISSING)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = self._settings(seed, max_iter=self.max_iter if len(noisy) else 0)
        self.folds_ = deal_folds(verified, settings.n_teams, seed)
        estimator = learners.default_learner(X)
        if self.estimator is not None:
            estimator = learners.normalised(self.estimator, X)
        views, eval_views = [X], [] if eval_set is None else [eval_set]
        shared = self.share_trunk and settings.n_teams > 1 and learners.has_trunk(estimator)
        if shared and len(noisy):
            embed = kept(_embed, ignore=["n_jobs"])
            embeddings = embed(X, verified, self.folds_, estimator, settings, eval_set, self.n_jobs)
            views = list(embeddings.samples)
            eval_views = [] if eval_set is None else list(embeddings.eval_samples)
            estimator = learners.default_learner(views[0])
        inputs = (views, verified, self.folds_, estimator, settings, eval_views)
        # A class of networks takes so long that its progress is to be seen.
        apart = not learners.continues_training(estimator)
        self.classes_ = classes
        self.votes_ = np.full((len(verified), len(classes)), STOPPED_EARLY, dtype=np.int16)
        claims = Claims(len(noisy))
        team_claims = [Claims(len(noisy)) for _ in settings.teams]
        eval_claims = Claims(0 if eval_set is None else _num_samples(eval_set))
        rules, histories = [], []
        # What a class found is not kept: for many samples and classes that is more than all else.
        for c, one in enumerate(self._filter_classes(len(classes), settings, inputs, apart=apart)):
            self.votes_[noisy, c] = one.votes
            claims.add(one.mean_proba)
            eval_claims.add(one.eval_mean_proba)
            for of_team, mean_proba in zip(team_claims, one.team_mean_proba, strict=True):
                of_team.add(mean_proba)
            rules.append(one.rule)
            histories.append(one.history)
        self.clean_labels_ = verified.copy()
        self.clean_labels_[noisy], self.n_conflicts_ = claims.settle()
        self.team_labels_ = np.tile(verified, (settings.n_teams, 1))
        for team, labels in enumerate(self.team_labels_):
            labels[self.folds_ == team] = MISSING
            labels[noisy], _ = team_claims[team].settle()
        if eval_set is not None:
            self.eval_labels_, _ = eval_claims.settle()
        records = pd.DataFrame(np.concatenate(histories), columns=HISTORY)
        records = records.astype(dict.fromkeys(HISTORY[:-1], int))
        self.n_iter_ = np.array([len(history) for history in histories])
        records.insert(0, "class_name", np.repeat(classes, self.n_iter_))
        self.history_ = records
        self.settings_ = pd.DataFrame(
            {
                "class_name": classes,
                "threshold": [float(rule[0]) for rule in rules],
                "min_votes": [int(rule[1]) for rule in rules],
                "n_members": len(settings.teams[0]),
                "precision": [float(rule[2]) for rule in rules],
                "n_clean": np.bincount(self.clean_labels_[noisy] + 1, minlength=len(classes) + 1)[
                    1:
                ],
            }
        )
        return self

    def _filter_classes(
        self, n_classes: int, settings: "_Settings", inputs: tuple, *, apart: bool
    ) -> Iterator["ClassResult"]:
        """Filter one class after the other, or side by side if they may be apart (line 1)."""
        ignored = ["n_jobs", "advance", "checkpoint"]
        filter_class = kept(_filter_class, ignored)
        n_steps = settings.max_iter * settings.n_members
        with stage("filter", n_classes * n_steps) as advance:
            # Where there are classes for all workers, nobody waits for the slowest member.
            if apart and 1 < effective_n_jobs(self.n_jobs) <= n_classes:
                tasks = (delayed(filter_class)(c, *inputs) for c in range(n_classes))
                results = learners.in_order(tasks, self.n_jobs)
            else:
                shared = (*inputs, self.n_jobs, advance)
                results = (_with_one_thread(filter_class, c, *shared) for c in range(n_classes))
            for n_done, result in enumerate(results, start=1):
                advance(to=n_done * n_steps)
                yield result

    def _settings(self, seed: int, max_iter: int) -> "_Settings":
        """Resolve what votes are needed, or what is to be chosen from."""
        threshold, min_votes = self.threshold, self.min_votes
        n_teams = 1
        if "auto" in (threshold, min_votes):
            n_teams = min(N_TEAMS, self.n_members)
        if n_teams == 1:  # nobody is left to be blind to anything
            threshold = DEFAULT_THRESHOLD if threshold == "auto" else threshold
            min_votes = DEFAULT_MIN_VOTES if min_votes == "auto" else min_votes
        if isinstance(min_votes, Integral) and min_votes > self.n_members:
            raise InputError(
                f"min_votes={min_votes} can never be reached with n_members="
                f"{self.n_members}: ask for at most {self.n_members} votes, or add members."
            )
        if isinstance(min_votes, Integral):
            min_votes = int(min_votes) / self.n_members
        return _Settings(
            n_members=self.n_members,
            n_teams=n_teams,
            max_iter=max_iter,
            thresholds=THRESHOLDS if threshold == "auto" else (threshold,),
            vote_shares=VOTE_SHARES if min_votes == "auto" else (min_votes,),
            target_precision=self.target_precision,
            tol=self.tol,
            seed=seed,
        )


# Training sets on which members without probabilities are calibrated, all members together.
CALIBRATION_SETS = 3
# Positives, and negatives, of a member's training set by which it is checked.
PROBE_SIZE = 32
DIVERGED = "knows nothing, as its training diverged"
# Samples that networks vote on at once: enough to be worth sending to a worker.
NETWORKS_BLOCK = 2048
HISTORY = ["iteration", "n_positives", "n_negatives", "n_clean", "n_eval", "seconds"]


class _Settings(NamedTuple):
    n_members: int
    n_teams: int
    max_iter: int
    thresholds: tuple
    vote_shares: tuple
    target_precision: float
    tol: float | None
    seed: int

    @property
    def teams(self) -> list[range]:
        """Members of each team; a fixed rule needs one team only, which is blind to nothing."""
        return [range(team, self.n_members, self.n_teams) for team in range(self.n_teams)]


class Rule(NamedTuple):
    """What elects a sample: `α`, `θ` in a team, and the precision that this had on trusted ones."""

    threshold: float
    min_votes: int
    precision: float


class ClassResult(NamedTuple):
    """What the filter found for one class, over the noisy samples; arrays only, to be stored."""

    votes: np.ndarray  # (n_noisy,) int16, -1 where voting stopped early
    mean_proba: np.ndarray  # (n_noisy,) of members; NaN outside the clean set
    team_mean_proba: np.ndarray  # (n_teams, n_noisy) the same, of each team's clean set
    eval_mean_proba: np.ndarray  # (n_eval,) the same as mean_proba
    rule: np.ndarray  # a Rule
    history: np.ndarray  # (n_iter, len(HISTORY))


class Embeddings(NamedTuple):
    """What the trunk of each team makes of all samples."""

    samples: np.ndarray  # (n_teams, n_samples, n_hidden), float32
    eval_samples: np.ndarray  # (n_teams, n_eval, n_hidden)


def _embed(
    X: Any,
    verified: np.ndarray,
    folds: np.ndarray,
    estimator: Any,
    settings: _Settings,
    eval_set: Any,
    n_jobs: int | None = None,
) -> Embeddings:
    """Train a network for each team, to tell the classes of the trusted samples it may see."""
    targets = one_hot(verified, verified.max() + 1)
    rows = [
        np.flatnonzero((verified != MISSING) & (folds != team)) for team in range(settings.n_teams)
    ]
    tasks = (
        learners.Training(
            estimator, X, targets[some], rows=some, role="teacher", seed=settings.seed
        )
        for some in rows
    )
    samples, eval_samples = [], []
    with stage("trunks", len(rows)) as advance:
        for trunk in learners.train_all(tasks, n_jobs):
            samples.append(learners.embed(trunk, X))
            if eval_set is not None:
                eval_samples.append(learners.embed(trunk, eval_set))
            advance(1)
    return Embeddings(_stacked(samples), _stacked(eval_samples))


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Put what there is of all teams into one array; of an `eval_set` there may be nothing."""
    if not arrays:
        return np.array([])
    return np.stack(arrays, out=rowwise.empty((len(arrays), *arrays[0].shape), arrays[0].dtype))


def _with_one_thread(function: Callable, *inputs: Any) -> Any:
    with one_thread():
        return function(*inputs)


class _Progress(NamedTuple):
    """Where the filter of a class is after some iterations."""

    tallies: list["Tally"]  # of each team, over the noisy samples
    eval_tallies: list["Tally"]
    rule: Rule
    members: Sequence
    history: list[tuple]

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep it, members only if the next iteration starts from their weights."""
        networks = [one if learners.continues_training(one) else [] for one in self.members]
        checkpoint.save(
            tallies=[tally._asdict() for tally in self.tallies],
            eval_tallies=[tally._asdict() for tally in self.eval_tallies],
            rule=np.array(self.rule),
            members=networks,
            history=np.array(self.history, dtype=float),
        )

    @classmethod
    def kept(cls, checkpoint: Checkpoint) -> "_Progress | None":
        """Return what was kept last."""
        parts = checkpoint.load()
        if parts is None:
            return None
        threshold, min_votes, precision = parts["rule"].tolist()
        return cls(
            [Tally(**tally) for tally in parts["tallies"]],
            [Tally(**tally) for tally in parts["eval_tallies"]],
            Rule(threshold, int(min_votes), precision),
            parts["members"],
            [tuple(row) for row in parts["history"]],
        )


def _filter_class(
    c: int,
    views: Sequence,
    verified: np.ndarray,
    folds: np.ndarray,
    estimator: Any,
    settings: _Settings,
    eval_views: Sequence,
    n_jobs: int | None = None,
    advance: Advance = ignore,
    checkpoint: Checkpoint = NOWHERE,
) -> ClassResult:
    """Run lines 2-9 of Algorithm 1 for class `c`; `views` are what each team, or all, see of X."""
    noisy = np.flatnonzero(verified == MISSING)
    positives = np.flatnonzero(verified == c)  # D_c^(i)
    negatives = np.flatnonzero((verified != c) & (verified != MISSING))
    eval_rows = np.arange(_num_samples(eval_views[0]) if eval_views else 0)
    now = _Progress.kept(checkpoint) or _Progress(
        [_no_votes(len(noisy)) for _ in settings.teams],
        [_no_votes(len(eval_rows)) for _ in settings.teams],
        Rule(settings.thresholds[0], len(settings.teams[0]), np.nan),
        (),
        [],
    )

    while len(now.history) < settings.max_iter:  # line 3
        start, k = time.perf_counter(), len(now.history)
        is_clean = _elected(now.tallies)
        draws = []
        for n, rng in enumerate(_generators(settings, c, k)):  # lines 4-6
            team = n % settings.n_teams
            seen = folds != team
            pools = positives[seen[positives]], negatives[seen[negatives]]
            found = is_clean[team]
            draws.append(draw_training_set(rng, pools[0], noisy[found], pools[1], noisy[~found]))
        members = _train_members(
            views, estimator, draws, now.members, settings, c, k, n_jobs, advance
        )
        rule = _choose_rule(members, views, folds, verified == c, settings)
        tallies = _vote(members, views, noisy, rule, settings, n_jobs)  # line 8
        eval_tallies = _vote(members, eval_views, eval_rows, rule, settings, n_jobs)

        n_positives, n_negatives = len(draws[0].positives), len(draws[0].negatives)
        sizes = [
            np.count_nonzero(~np.isnan(_merge(some).mean_proba)) for some in (tallies, eval_tallies)
        ]
        row = (k + 1, n_positives, n_negatives, *sizes, time.perf_counter() - start)
        now = _Progress(tallies, eval_tallies, rule, members, [*now.history, row])
        if k > 0 and _has_settled(is_clean, _elected(tallies), settings):
            break
        if checkpoint.is_due:
            now.keep(checkpoint)

    merged = _merge(now.tallies)
    return ClassResult(
        merged.votes,
        merged.mean_proba,
        _stacked([tally.mean_proba for tally in now.tallies]),
        _merge(now.eval_tallies).mean_proba,
        np.array(now.rule),
        np.array(now.history, dtype=float).reshape(-1, len(HISTORY)),
    )


def _has_settled(before: np.ndarray, after: np.ndarray, settings: _Settings) -> bool:
    """Whether another iteration would change little; (n_teams, n_samples), bool."""
    if settings.tol is None:
        return False
    # A rule that is chosen anew elects now more, now fewer: all that counts is growth.
    chosen = settings.n_teams > 1
    change = after.sum() - before.sum() if chosen else (after != before).sum()
    return bool(change <= settings.tol * after.sum())


def _choose_rule(
    members: Sequence,
    views: Sequence,
    folds: np.ndarray,
    is_class: np.ndarray,
    settings: _Settings,
) -> Rule:
    """Choose `α` and `θ` by what the members make of trusted samples that were hidden from them."""
    size = len(settings.teams[0])
    if settings.n_teams == 1:
        return Rule(settings.thresholds[0], _votes(settings.vote_shares[0], size), np.nan)
    scores, positive = [], []
    for number, team in enumerate(settings.teams):
        rows = np.flatnonzero(folds == number)
        proba = [
            learners.predict_proba(members[n], _view(views, n, settings), 2, rows)[:, 1]
            for n in team
        ]
        # A smaller team's last member votes twice, so that all teams are of one size.
        scores.append(np.array(proba + proba[-1:] * (size - len(team))))
        positive.append(is_class[rows])
    return choose_rule(
        np.hstack(scores),
        np.concatenate(positive),
        settings.thresholds,
        settings.vote_shares,
        settings.target_precision,
    )


def choose_rule(
    scores: np.ndarray,
    positive: np.ndarray,
    thresholds: Sequence[float],
    vote_shares: Sequence[float],
    target_precision: float,
) -> Rule:
    """Find the rule that gains most: right samples elected, less what wrong ones cost.

    A wrong sample costs as much as at the target precision right ones make up for. Precisions are
    shrunk towards `PRIOR_PRECISION`, as if `PRIOR_SAMPLES` samples more had been seen.

    Parameters
    ----------
    scores : ndarray of shape (n_members, n_samples)
        Probabilities that members give to trusted samples which they have not learned from.
    positive : ndarray of shape (n_samples,), bool
        Which of the samples are of the class.
    thresholds, vote_shares : sequence of float
        Values of `α`, and of `θ` as a share of the members, to choose from.
    target_precision : float
        Precision that is asked for.

    Returns
    -------
    rule : Rule
        Among equals the strictest, but while no rule elects anybody the laxest: then the clean set
        may still grow. Where no rule reaches the target, one that elects nobody: more votes than
        there are members, and a precision of NaN. Where no sample is positive, the paper's.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import choose_rule
    >>> scores = np.array([[0.95, 0.7, 0.75, 0.1], [0.9, 0.8, 0.4, 0.2]])
    >>> positive = np.array([True, True, False, False])
    >>> choose_rule(scores, positive, [0.5, 0.7, 0.9], [0.5, 1.0], 0.9)[:2]
    (0.7, 2)
    """
    n_members = len(scores)
    if not positive.any():  # too few trusted samples to hide any
        return Rule(DEFAULT_THRESHOLD, _votes(DEFAULT_MIN_VOTES, n_members), np.nan)
    best, most = Rule(max(thresholds), n_members + 1, np.nan), 0.0
    for threshold in sorted(thresholds, reverse=True):
        votes = (scores >= threshold).sum(axis=0)
        for share in sorted(vote_shares, reverse=True):
            min_votes = _votes(share, n_members)
            elected = votes >= min_votes
            n_right, n_elected = int((elected & positive).sum()), int(elected.sum())
            precision = (n_right + PRIOR_SAMPLES * PRIOR_PRECISION) / (n_elected + PRIOR_SAMPLES)
            gain = n_elected * (precision - target_precision)
            if gain > most or gain == most == 0:  # where nobody was elected the laxest may grow
                measured = precision if n_elected else np.nan
                best, most = Rule(threshold, min_votes, measured), gain
    return best


def _votes(share: float, n_members: int) -> int:
    """Count the votes that are at least a share of the members."""
    return max(1, math.ceil(share * n_members - 1e-9))


class TrainingSet(NamedTuple):
    """Rows that one member learns from, and the weight of each negative."""

    positives: np.ndarray
    negatives: np.ndarray
    negative_weight: float


def draw_training_set(
    rng: np.random.Generator,
    trusted_positives: np.ndarray,
    clean: np.ndarray,
    trusted_negatives: np.ndarray,
    unlabeled: np.ndarray,
) -> TrainingSet:
    """Draw one member's training set (Algorithm 1, lines 4, 6 and 7).

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    trusted_positives, clean, trusted_negatives, unlabeled : ndarrays, int
        The pools: rows of `D_c` of the class, of its clean set so far, of `D_c` of other classes,
        and of the rest of `D_n`.

    Returns
    -------
    training_set : TrainingSet
        All trusted positives and `m_k` clean ones against as many negatives, half of them
        trusted. Where one pool of negatives is too small the other one fills up; where both
        together are, negatives weigh more, so that the sides still balance. Nothing is drawn twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import draw_training_set
    >>> rng = np.random.default_rng(0)
    >>> pools = np.arange(4), np.arange(10, 12), np.arange(20, 40), np.arange(50, 90)
    >>> positives, negatives, weight = draw_training_set(rng, *pools)
    >>> len(positives), (negatives < 50).sum().item(), (negatives >= 50).sum().item(), weight
    (6, 3, 3, 1.0)
    """
    n_clean = min(len(trusted_positives), len(clean))  # m_k
    positives = np.concatenate([trusted_positives, rng.choice(clean, n_clean, replace=False)])
    n_trusted = len(positives) // 2  # m'_k
    n_unlabeled = len(positives) - n_trusted
    missing_trusted = max(0, n_trusted - len(trusted_negatives))
    missing_unlabeled = max(0, n_unlabeled - len(unlabeled))
    n_trusted = min(n_trusted + missing_unlabeled, len(trusted_negatives))
    n_unlabeled = min(n_unlabeled + missing_trusted, len(unlabeled))
    negatives = np.concatenate(
        [
            rng.choice(trusted_negatives, n_trusted, replace=False),  # N''
            rng.choice(unlabeled, n_unlabeled, replace=False),  # N'
        ]
    )
    return TrainingSet(positives, negatives, len(positives) / len(negatives))


def _generators(settings: _Settings, c: int, k: int) -> Iterator[np.random.Generator]:
    """One generator a member, the same whatever else runs before or beside it."""
    return (np.random.default_rng([settings.seed, c, k, n]) for n in range(settings.n_members))


def _train_members(
    views: Sequence,
    estimator: Any,
    draws: Sequence[TrainingSet],
    previous: Sequence,
    settings: _Settings,
    c: int,
    k: int,
    n_jobs: int | None,
    advance: Advance,
) -> list:
    """Train the members of one iteration (lines 5 and 7); networks go on from their weights."""
    seeds = np.random.SeedSequence([settings.seed, c, k]).generate_state(settings.n_members)

    def task(n: int) -> learners.Training:
        sizes = [len(draws[n].positives), len(draws[n].negatives)]
        goes_on = bool(previous) and learners.continues_training(previous[n])
        return learners.Training(
            previous[n] if goes_on else estimator,
            learners.take(
                _view(views, n, settings),
                np.concatenate([draws[n].positives, draws[n].negatives]),
            ),
            one_hot(np.repeat([1, 0], sizes), 2),
            role="member",
            seed=int(seeds[n]) % 2**31,
            sample_weight=_weights(draws[n]),
            continued=goes_on,
            expendable=True,
        )

    members = []
    for member in learners.train_all(map(task, range(settings.n_members)), n_jobs):
        members.append(member)
        advance(1, detail=f"class {c + 1}, iteration {k + 1}, member {len(members)}")
    some = map(task, range(min(CALIBRATION_SETS, settings.n_members)))
    members = learners.calibrate_together(members, some)
    flaws = [_flaw(member, _view(views, n, settings), draws[n]) for n, member in enumerate(members)]
    return _with_substitutes(members, flaws, settings, f"class {c + 1}, iteration {k + 1}")


def _flaw(member: Any, view: Any, draw: TrainingSet) -> str | None:
    """Say what is wrong with a member that cannot tell even its own training samples apart."""
    rows = np.concatenate([some[:PROBE_SIZE] for some in (draw.positives, draw.negatives)])
    scores = learners.predict_proba(member, view, 2, rows)[:, 1]
    if not np.isfinite(scores).all():
        return DIVERGED
    if (scores >= 0.5).all():
        return "votes for everything"
    return "votes for nothing" if (scores < 0.5).all() else None


def _with_substitutes(
    members: list, flaws: Sequence[str | None], settings: _Settings, when: str
) -> list:
    """Let the next good member of its team vote in place of one that would spoil the vote.

    Where its whole team is no better, it abstains. Where most members are alike, as networks that
    learn slowly are in their first iterations, all vote that know anything.
    """
    flawed = {n: flaw for n, flaw in enumerate(flaws) if flaw is not None}
    few = 2 * len(flawed) <= len(members)
    told = flawed if few else {n: flawed[n] for n in flawed if flawed[n] == DIVERGED}
    if told:
        each = ", ".join(f"member {n + 1} {flaw}" for n, flaw in told.items())
        done = "others vote in their place, or none" if few else "they abstain"
        warnings.warn(f"In the filter, {when}, {each}: {done}.", RecoveredWarning, stacklevel=2)
    voters = list(members)
    for team in settings.teams if few else ():
        good = [n for n in team if n not in flawed]
        for n in flawed.keys() & team:
            # A copy, as both will go on learning.
            after = next((other for other in good if other > n), good[0] if good else None)
            silent = learners.Silent(n_classes=2)
            voters[n] = silent if after is None else copy.deepcopy(members[after])
    return voters


def _weights(draw: TrainingSet) -> np.ndarray | None:
    if draw.negative_weight == 1:
        return None
    return np.repeat([1.0, draw.negative_weight], [len(draw.positives), len(draw.negatives)])


class Tally(NamedTuple):
    """The result of a vote: votes (-1 where stopped early), mean probability of the elected."""

    votes: np.ndarray
    mean_proba: np.ndarray


def _no_votes(n_samples: int) -> Tally:
    return Tally(np.full(n_samples, STOPPED_EARLY, np.int16), np.full(n_samples, np.nan))


def _vote(
    members: Sequence,
    views: Sequence,
    rows: np.ndarray,
    rule: Rule,
    settings: _Settings,
    n_jobs: int | None,
) -> list[Tally]:
    """Let each team vote on its own, block by block; networks vote on several blocks at a time."""
    if rule.min_votes > len(settings.teams[0]) or len(rows) == 0:  # nobody can be elected
        return [_no_votes(len(rows)) for _ in settings.teams]
    networks = any(map(learners.continues_training, members))
    # The same whatever the number of workers, as results are, to the last digit.
    size = NETWORKS_BLOCK if networks else rowwise.BLOCK_SIZE
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    tasks = (delayed(_vote_on)(members, views, block, rule, settings) for block in blocks)
    at_once = n_jobs if networks and len(blocks) > 1 else 1
    votes = rowwise.empty((len(settings.teams), len(rows)), np.int16)
    mean_proba = rowwise.empty(votes.shape)
    for start, tallies in zip(
        range(0, len(rows), size), learners.in_order(tasks, at_once), strict=True
    ):
        for team, tally in enumerate(tallies):
            votes[team, start : start + size] = tally.votes
            mean_proba[team, start : start + size] = tally.mean_proba
    return list(map(Tally, votes, mean_proba))


def _vote_on(
    members: Sequence, views: Sequence, rows: np.ndarray, rule: Rule, settings: _Settings
) -> list[Tally]:
    score = _scorer(members, views, rows, settings)
    return [
        cascade_vote(team, score, len(rows), rule.threshold, min(rule.min_votes, len(team)))
        for team in settings.teams
    ]


def _scorer(
    members: Sequence, views: Sequence, rows: np.ndarray, settings: _Settings
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return what scores some of `rows` by a member; samples are taken once for all members.

    Logistic regressions, the default, score all of them at once, in one matrix product.
    """
    blocks = [learners.take(view, rows) for view in views]
    scores: dict[int, np.ndarray] = {}
    for number, block in enumerate(blocks):
        seeing = range(number, len(members), len(blocks))
        maps = {n: one for n in seeing if (one := affine_map(members[n])) is not None}
        if maps and not isinstance(block, pd.DataFrame):
            scores |= zip(maps, probabilities(list(maps.values()), block), strict=True)

    def score(n: int, subset: np.ndarray) -> np.ndarray:
        if n in scores:
            return scores[n][subset]
        return learners.predict_proba(members[n], _view(blocks, n, settings), 2, subset)[:, 1]

    return score


def _view(views: Sequence, n: int, settings: _Settings) -> Any:
    """Return the samples as member `n` sees them."""
    return views[n % settings.n_teams] if len(views) > 1 else views[0]


def _elected(tallies: Sequence[Tally]) -> np.ndarray:
    """Say whom each team elected: (n_teams, n_samples), bool."""
    return np.array([~np.isnan(tally.mean_proba) for tally in tallies])


def _merge(tallies: Sequence[Tally]) -> Tally:
    """Elect whom more than half of the teams elect; votes are those of the electing teams."""
    if len(tallies) == 1:
        return tallies[0]
    n_samples = len(tallies[0].votes)
    votes, n_teams = np.zeros((2, n_samples), np.int16)
    proba = np.zeros(n_samples)
    for tally in tallies:
        elected = ~np.isnan(tally.mean_proba)
        votes[elected] += tally.votes[elected]
        proba[elected] += tally.mean_proba[elected]
        n_teams += elected
    enough = n_teams > len(tallies) / 2
    votes[~enough] = STOPPED_EARLY
    proba[enough] /= n_teams[enough]
    proba[~enough] = np.nan
    return Tally(votes, proba)


def cascade_vote(
    members: Sequence,
    score: Callable[[Any, np.ndarray], np.ndarray],
    n_samples: int,
    threshold: float,
    min_votes: int,
) -> Tally:
    """Let members vote on samples, leaving out those that can no longer win.

    After `n_members - min_votes + 1` members have failed to vote for it a sample is out and is not
    scored again; who is elected is exactly what full voting gives (paper, equation 3).

    Parameters
    ----------
    members : sequence of length n_members
        Voters.
    score : callable
        ``score(member, rows)`` gives an array of shape (len(rows),): the member's probabilities.
    n_samples : int
        Number of samples.
    threshold : float
        A member votes for a sample from this probability on, `α`.
    min_votes : int
        Votes that elect a sample, `θ`.

    Returns
    -------
    tally : Tally
        ``votes`` of shape (n_samples,), int16, -1 where voting stopped early, and ``mean_proba`` of
        shape (n_samples,), NaN for samples that are not elected.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import cascade_vote
    >>> proba = np.array([[0.9, 0.2], [0.8, 0.9], [0.9, 0.9]])  # 3 members, 2 samples
    >>> cascade_vote([0, 1, 2], lambda n, rows: proba[n, rows], 2, 0.85, 2).votes.tolist()
    [2, 2]
    >>> cascade_vote([0, 1, 2], lambda n, rows: proba[n, rows], 2, 0.85, 3).votes.tolist()
    [-1, -1]
    """
    votes = np.zeros(n_samples, dtype=np.int16)
    total = np.zeros(n_samples)
    alive = np.arange(n_samples)
    for n, member in enumerate(members, start=1):
        proba = score(member, alive)
        votes[alive] += proba >= threshold
        total[alive] += np.nan_to_num(proba)  # of a member that knows nothing
        out = n - votes[alive] > len(members) - min_votes
        if n < len(members):
            votes[alive[out]] = STOPPED_EARLY
        alive = alive[~out]
    mean_proba = np.full(n_samples, np.nan)
    mean_proba[alive] = total[alive] / len(members)
    return Tally(votes, mean_proba)


class Claims:
    """Which class gets each sample (Algorithm 1, line 10), told class by class.

    Parameters
    ----------
    n_samples : int
        Number of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import Claims
    >>> claims, nan = Claims(4), np.nan
    >>> claims.add(np.array([0.9, 0.9, 0.9, nan]))
    >>> claims.add(np.array([nan, 0.95, 0.9, nan]))
    >>> labels, n_conflicts = claims.settle()
    >>> labels.tolist(), n_conflicts
    ([0, 1, -1, -1], 2)
    """

    def __init__(self, n_samples: int) -> None:
        self._labels = np.full(n_samples, MISSING, np.int32)
        self._strongest = rowwise.empty((n_samples,))
        self._strongest[:] = -np.inf
        self._is_tied = np.zeros(n_samples, dtype=bool)
        self._is_disputed = np.zeros(n_samples, dtype=bool)
        self._n_classes = 0

    def add(self, mean_proba: np.ndarray) -> None:
        """Add the next class's claims.

        Parameters
        ----------
        mean_proba : ndarray of shape (n_samples,)
            Mean member probability where the class elected a sample, NaN elsewhere.
        """
        is_claimed = ~np.isnan(mean_proba)
        self._is_disputed |= is_claimed & (self._labels != MISSING)
        is_tied = mean_proba == self._strongest
        is_stronger = mean_proba > self._strongest
        self._is_tied = is_tied | (self._is_tied & ~is_stronger)
        self._labels[is_stronger] = self._n_classes
        self._strongest[is_stronger] = mean_proba[is_stronger]
        self._n_classes += 1

    def settle(self) -> tuple[np.ndarray, int]:
        """Give each sample to the class with the highest mean.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            Classes; -1 where none claims the sample or two tie.
        n_conflicts : int
            Samples that more than one class had claimed.
        """
        return np.where(self._is_tied, MISSING, self._labels), int(self._is_disputed.sum())
