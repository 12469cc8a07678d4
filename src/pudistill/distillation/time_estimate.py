"""How long a fit will take: a few timed fits, times the number of fits in each of its parts."""

import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from pudistill.data.encoding import is_texts
from pudistill.distillation.few_trusted import are_few
from pudistill.distillation.rounds import HELD_OUT_FOLDS, MAX_ROUNDS_MANY_CLASSES, folds_for
from pudistill.distillation.views import ENOUGH_HELD_OUT
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.labels.samples import is_pictures
from pudistill.learners.cache import caching_to
from pudistill.learners.capabilities import (
    continues_training,
    final_step,
    has_trunk,
    with_share_of_trees,
)
from pudistill.learners.cross_fitting import MANY_SAMPLES
from pudistill.learners.linear import MANY_CLASSES, learns_in_blocks
from pudistill.learners.networks.recipes import find_recipe
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, train, train_all
from pudistill.pu_filter.plan import N_TEAMS, at_most_needed
from pudistill.utils.progress import display, tracking_trainings
from pudistill.utils.threads import one_thread
from pudistill.utils.time_limit import TimeLimit, duration

# Samples of the first trial fit. Each further one has more, as long as it takes at most some
# seconds and this share of the whole, which is at least as long as so many fits of all samples.
SMALLEST_TRIAL, TRIAL_GROWTH, TRIAL_SECONDS, TRIAL_SHARE, FITS_OF_WHOLE = 100, 4, 2.0, 0.02, 200
TRIAL_STEPS = 5  # of a network's training
# What fits need on average. What one fit needs depends on its data, and is known only afterwards.
ITERATIONS, SELF_TRAININGS, ROUNDS, REGULARISATIONS = 3, 6, 4, 3
WARM = 0.4  # share of the time that a fit takes if it starts from the one before
CLEAN = 0.5  # share of the time that a fit takes if its labels are right, which are easier to learn
# Of the time of a training on as many pictures with labels: half the epochs, in which each picture
# is seen in two views, one without a gradient, and a quarter more are trusted samples, again and
# again. The networks that start from it make half of the epochs, or less.
SEMI_SUPERVISED, CONTINUED = 0.9, 0.6
OVERHEAD = 0.01  # seconds of a fit, beside its training
VOTERS = 0.5  # share of the members that vote on a sample, on average, until it is out
EFFICIENCY = 0.7  # of each further worker
UNCALIBRATED_TRIAL = 400  # samples
CALIBRATIONS = 15  # fits that calibrate the members of a class together
SECONDS_OF_NOISE = 2.0  # of estimating the noise, and of what comes after the last model
RANGE = (0.65, 1.5)  # the actual time is mostly between these multiples of the estimate
SHORT = 0.2  # seconds of trials that are repeated
WORTH_SAYING = 15.0  # seconds; of shorter fits nothing is said
ABOUT_HALF = 0.67  # an option is named if it leaves at most this share of the time


# Steps that users see as part of another stage.
STAGES = {"regularisation": "student", "students": "student"}


class Work(NamedTuple):
    """What a fit has to do.

    Attributes
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    labels : Labels
        Their labels.
    member, student : classifier
        Templates of the filter's members and of all other models.
    params : dict
        Parameters of the `PUDistillClassifier`.
    """

    X: Any
    labels: Labels
    member: Any
    student: Any
    params: dict[str, Any]

    @property
    def is_paper(self) -> bool:
        """Whether the method is the paper's."""
        return self.params["method"] == "paper"

    @property
    def tunes(self) -> bool:
        """Whether the regularisation of the student is chosen."""
        is_default = self.params["estimator"] is None and self.params["student"] is None
        return is_default and not is_pictures(self.X) and self.labels.n_classes < MANY_CLASSES

    @property
    def n_views(self) -> int:
        """Number of views: of all trusted samples, and without each fold that is held out."""
        if not self.params["compare"] or self.is_paper:
            return 1
        of_fold = max(1.0, self.labels.drawn.sum() / N_TEAMS)
        n_folds = min(N_TEAMS, math.ceil(ENOUGH_HELD_OUT / of_fold))
        if continues_training(self.student) and n_folds > 1:
            n_folds = N_TEAMS
        return 1 + n_folds


class Step(NamedTuple):
    """A part of a fit.

    Attributes
    ----------
    name : str
        Name of the part.
    n_models : float
        Number of models that it trains.
    seconds : float
        Seconds that it takes on average.
    least : float
        Seconds that it takes if a time limit cuts it short.
    """

    name: str
    n_models: float
    seconds: float
    least: float


@dataclass(frozen=True)
class TimeEstimate:
    """How long a fit takes on this machine.

    Attributes
    ----------
    steps : list of Step
        The parts of the fit, in order.
    faster : dict of str to float
        Seconds with another value of a parameter, by that parameter, its value and its option.
    least_uncompared : float
        Seconds that the fit takes at least if its comparison is left out, too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill import PUDistillClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> time = PUDistillClassifier(random_state=0).estimate_time(X, y, np.arange(178) % 5 == 0)
    >>> time.seconds > 0
    True
    """

    steps: list[Step]
    faster: dict[str, float]
    least_uncompared: float

    @property
    def seconds(self) -> float:
        """The most likely number of seconds."""
        return sum(step.seconds for step in self.steps)

    @property
    def seconds_of_stages(self) -> dict[str, float]:
        """Seconds of each stage that users see, and of the work between them."""
        seconds: dict[str, float] = {}
        for step in self.steps:
            name = STAGES.get(step.name, step.name)
            seconds[name] = seconds.get(name, 0.0) + step.seconds
        return seconds

    @property
    def interval(self) -> tuple[float, float]:
        """Range, in seconds, that the actual time is usually in."""
        return RANGE[0] * self.seconds, RANGE[1] * self.seconds

    def __str__(self) -> str:
        """Say in a sentence or two what will be done, how long it takes, and what is faster."""
        n_models = sum(step.n_models for step in self.steps)
        n_models = round(n_models, 1 - len(str(round(n_models))))
        low, high = duration(*self.interval)
        models = f"about {n_models:,.0f} models" if n_models > 1 else "one model"
        span = f"about {high}" if low == high.split()[0] else f"{low} to {high}"
        text = f"This fit trains {models} and will probably take {span}."
        if self.faster:
            option = min(self.faster, key=lambda name: self.faster[name])
            share = self.faster[option] / self.seconds
            named = "half" if share > 0.4 else "a third" if share > 0.28 else "a quarter"
            text += f" With {option} it would take about {named} of that."
        return text

    def scaled(self, share: float) -> "TimeEstimate":
        """Return the estimate of a fit that takes this share of the time."""
        steps = [
            step._replace(
                n_models=share * step.n_models,
                seconds=share * step.seconds,
                least=share * step.least,
            )
            for step in self.steps
        ]
        return TimeEstimate(steps, {}, share * self.least_uncompared)

    def shortened_to(self, seconds: float) -> "TimeEstimate":
        """Return the estimate of the same fit with a time limit."""
        share = min(1.0, self._share(seconds))
        steps = [
            step._replace(seconds=step.least + share * (step.seconds - step.least))
            for step in self.steps
        ]
        return replace(self, steps=steps)

    def _share(self, seconds: float) -> float:
        """Return the share of what can be cut short that a time limit leaves."""
        least = sum(step.least for step in self.steps)
        return max(0.0, (seconds - least) / max(self.seconds - least, 1e-9))

    def limit(self, seconds: float, begin: float, workers: int) -> TimeLimit:
        """Divide a time limit among the parts.

        Each part gets what it needs at least, and a share of the rest, so that there is time for
        what comes after it. What all parts together will not need goes to the earlier ones.

        Parameters
        ----------
        seconds : float
            The limit.
        begin : float
            When it began, in seconds of `time.time`.
        workers : int
            Number of parts of a stage that are computed at the same time.

        Returns
        -------
        limit : TimeLimit
            The times when the parts have to end. Parts that are computed wholly or not at all, the
            regularisation and the views that hold samples out, "end" when it is too late to begin.
        """
        share = min(self._share(seconds), RANGE[1])
        ends, later, later_least = {}, 0.0, 0.0
        for step in reversed(self.steps):
            ends[step.name] = begin + seconds - later
            if step.name == "regularisation":
                ends[step.name] = begin + seconds - later_least - step.seconds
            later += step.least + share * (step.seconds - step.least)
            later_least += step.least
            if step.name == "noise-free models":
                ends["held-out views"] = begin + seconds - later_least
        return TimeLimit(begin, ends, workers)


class _Rates(NamedTuple):
    """Seconds of what a fit consists of."""

    model: Callable[[float], float]  # a fit of all classes, by the number of samples
    member: Callable[[float], float]  # a fit of a member
    predict: float  # predictions of a model for a sample
    vote: float  # of a member
    calibrates: bool  # whether members are calibrated together
    uncalibrated: float = 1.0  # share of a fit's time without its calibration


def estimate_time(work: Work) -> TimeEstimate:
    """Estimate how long a fit takes, from short trial fits on few samples.

    Parameters
    ----------
    work : Work
        What the fit has to do.

    Returns
    -------
    estimate : TimeEstimate
        The estimate.
    """
    unlogged = tracking_trainings(lambda *_: None)
    with warnings.catch_warnings(), caching_to(None), display(None), one_thread(), unlogged:
        warnings.simplefilter("ignore")  # the fit itself will issue them
        rates = _measure(work)
    steps = _steps(work, rates)
    seconds, faster = sum(step.seconds for step in steps), {}
    half = max(1, work.params["n_members"] // 2)
    changes: list[tuple[str, Any, str]] = [
        ("compare", False, "--no-compare"),
        ("n_members", half, f"--n-members {half}"),
    ]
    for name, value, option in changes:
        changed = work._replace(params=work.params | {name: value})
        needed = sum(step.seconds for step in _steps(changed, rates))
        if needed <= ABOUT_HALF * seconds:
            faster[f"{name}={value} ({option})"] = needed
    uncompared = _steps(work._replace(params=work.params | {"compare": False}), rates)
    return TimeEstimate(steps, faster, sum(step.least for step in uncompared))


def _steps(work: Work, rates: _Rates) -> list[Step]:
    """List the parts of a fit."""
    params, labels = work.params, work.labels
    n, n_classes = len(labels.given), labels.n_classes
    n_trusted = max(int(labels.drawn.sum()), 1)
    n_noisy, views = n - n_trusted, work.n_views
    is_network, cores = continues_training(work.student), os.cpu_count() or 1
    if labels.trusted.all():  # only a student is trained
        return [Step("student", 1, rates.model(n), rates.model(n))]
    model, few, many = rates.model, 0.8 * n_trusted, n_classes >= MANY_CLASSES
    is_linear = learns_in_blocks(work.student, work.X)
    warm = WARM if is_linear and n >= MANY_SAMPLES else 1.0
    clean = WARM if is_linear else CLEAN
    workers = min(effective_n_jobs(params["n_jobs"]), cores)

    starts_semi_supervised = is_network and params["semi_supervised"] and is_pictures(work.X)

    def on_workers(seconds: float, at_once: int) -> float:
        return seconds / (1 + EFFICIENCY * (min(workers, at_once) - 1))

    # 1. The filter: members, their votes, and the layers that they share.
    n_members = params["n_members"]
    if not work.is_paper:
        n_members = at_most_needed(n_members, labels)
    of_class = n_trusted / n_classes
    members = n_members * rates.member(3 * of_class)
    if rates.calibrates:
        members += CALIBRATIONS * rates.member(3 * of_class)
    votes = n_members * rates.vote * (VOTERS * n_noisy + n_trusted / N_TEAMS)
    iteration = on_workers(n_classes * (members + votes), max(n_classes, n_members))
    n_iterations = min(ITERATIONS, params["max_iter"])
    if work.is_paper and params["tol"] is None:
        n_iterations = params["max_iter"]
    trunks = _n_trunks(work)
    shared = on_workers(trunks * (model(few) + rates.predict * n), trunks or 1)
    n_trained = trunks + n_iterations * n_members * n_classes
    filtering = Step("filter", n_trained, shared + n_iterations * iteration, shared + iteration)
    if work.is_paper:
        n_teachers = N_TEAMS if params["n_teachers"] == "auto" else params["n_teachers"]
        seconds = on_workers(n_teachers * model(n / 2), n_teachers)
        teachers = Step("teachers", n_teachers, seconds, seconds)
        return [filtering, teachers, Step("student", 1, model(n), model(n))]

    # 2. Models of the trusted samples and of the clean set, in each view, and self-training.
    found = min(n, n_trusted + n_noisy / 3)
    seconds = model(few) + model(found) + 4 * rates.predict * n
    longer, n_self = seconds, 0
    if not is_network:
        n_self = 2 * SELF_TRAININGS
        longer += n_self * (clean * model((found + n) / 2) + rates.predict * n / 2)
        seconds += rates.predict * n + model(found)
    elif starts_semi_supervised:
        n_self = 1
        longer = seconds = seconds + SEMI_SUPERVISED * model(n)
    noise_free = Step(
        "noise-free models",
        views * (2 + n_self),
        on_workers(views * longer, views),
        on_workers(views * seconds, views),
    )

    # 3. The student, and the models of given labels that it is compared with.
    judged = views - 1
    compared = on_workers(judged * model(n), judged or 1) + model(n)
    comparison = Step("comparison", judged + 1, compared, compared)
    after = SECONDS_OF_NOISE + 4 * rates.predict * n
    noise = Step("noise", 0, after, after)
    if is_network:
        # Several views share one network of the given labels, and need no others that read half.
        n_networks = judged if judged > 1 else judged + 2
        of_network = model(n) * (CONTINUED if starts_semi_supervised else 1)
        seconds = on_workers(n_networks * (of_network + rates.predict * n), n_networks)
        seconds += of_network
        student = Step("student", n_networks + 1, seconds, seconds)
        if judged > 1 and labels.groups is None:
            comparison = Step("comparison", 2, 2 * model(n), 2 * model(n))
        return [filtering, noise_free, student, comparison, noise]
    folds = folds_for(n, n_classes)
    n_rounds = ROUNDS if n < MANY_SAMPLES else ROUNDS - 1
    n_rounds = MAX_ROUNDS_MANY_CLASSES if many else n_rounds
    of_judged = judged * HELD_OUT_FOLDS * model(n / 2)
    cross_fit = folds * model(n * (1 - 1 / folds))
    of_round = (cross_fit + of_judged) * rates.uncalibrated
    of_round += views * rates.predict * n
    of_round = on_workers(of_round, views if judged else folds)
    tuning = on_workers(REGULARISATIONS * of_judged, judged or 1) * work.tunes
    rounds = of_round * (1 + warm * (n_rounds - 1))
    if judged and are_few(labels):
        rounds += 2 * on_workers(cross_fit, folds)  # models of given labels join the first guess
    students = on_workers(views * (clean * model(n) + rates.predict * n), views)
    per_round = folds + judged * HELD_OUT_FOLDS
    if judged and n_trusted < ENOUGH_HELD_OUT:
        # The peers: models of the given labels, of the pruned ones, and a second student.
        seconds = on_workers(cross_fit, folds) + compared + rounds + students
        n_peers = folds + judged + n_rounds * per_round + views
        comparison = Step("comparison", judged + 1 + n_peers, compared + seconds, compared)
    return [
        filtering,
        noise_free,
        Step("regularisation", REGULARISATIONS * judged * HELD_OUT_FOLDS * work.tunes, tuning, 0),
        Step("student", n_rounds * per_round, rounds, of_round),
        Step("students", views, students, students),
        comparison,
        noise,
    ]


def _n_trunks(work: Work) -> int:
    """Return the number of networks whose layers the members share."""
    shares = work.params["share_trunk"]
    shares = not work.is_paper if shares == "auto" else shares
    return N_TEAMS if shares and has_trunk(work.member) else 0


def _measure(work: Work) -> _Rates:
    """Time a fit of all classes, a fit of members, and predictions."""
    n, rng = len(work.labels.given), np.random.default_rng(0)
    order = rng.permutation(n)
    if continues_training(work.student):
        model, predict = _time_network(work, work.student, order)
        if continues_training(work.member) and not _n_trunks(work):
            of_members, vote = _time_network(work, work.member, order)
            return _Rates(model, of_members, predict, vote, False)
        # Members on shared layers are logistic regressions on a few features.
        return _Rates(model, lambda size: 1e-3 + 1e-6 * size, predict, 1e-6, False)
    model, predict = _time_model(work, order)
    # Members learn from few samples, of two classes.
    n_of_class = int(3 * work.labels.drawn.sum() / work.labels.n_classes)
    member, params = work.member, work.params
    if not work.is_paper and "auto" in (params["threshold"], params["min_votes"]):
        member = with_share_of_trees(member, max(1, params["n_members"] // N_TEAMS))
    rows = order[: min(n, max(n_of_class, 8))]
    X_of_class, halves = _safe_indexing(work.X, rows), one_hot(np.arange(len(rows)) % 2, 2)
    tasks = [
        Training(member, X_of_class, halves, "member", seed, together=True) for seed in range(2)
    ]
    seconds, members = _timed(lambda: list(train_all(iter(tasks), 1)))
    calibrates = not hasattr(members[0], "predict_proba")
    X_voted = _safe_indexing(work.X, order[:1000])
    score = getattr(members[0], "decision_function" if calibrates else "predict_proba")
    vote = _timed(lambda: score(X_voted))[0] / min(n, 1000)
    of_member = seconds / len(tasks)
    return _Rates(
        model,
        lambda size: of_member * size / len(rows),
        predict,
        vote,
        calibrates,
        _cost_uncalibrated(work, order) if calibrates else 1.0,
    )


def _cost_uncalibrated(work: Work, order: np.ndarray) -> float:
    """Return the share of a calibrated fit's time that one without calibration takes."""
    codes = np.where(work.labels.verified == MISSING, work.labels.given, work.labels.verified)
    labelled = order[codes[order] != MISSING]
    of_each_class = labelled[np.unique(codes[labelled], return_index=True)[1]]
    rows = np.union1d(labelled[:UNCALIBRATED_TRIAL], of_each_class)
    tasks = [
        Training(
            work.student, work.X, one_hot(codes[rows], work.labels.n_classes), role, 0, rows=rows
        )
        for role in ("member", "student")
    ]
    alone, calibrated = (_timed(partial(train, task))[0] for task in tasks)
    return alone / calibrated


def _time_model(work: Work, order: np.ndarray) -> tuple[Callable[[float], float], float]:
    """Time fits of ever more samples; return seconds by size, and those of a prediction."""
    n, n_classes = len(order), work.labels.n_classes
    codes = np.where(work.labels.verified == MISSING, work.labels.given, work.labels.verified)
    of_each_class = np.unique(np.where(codes == MISSING, 0, codes), return_index=True)[1]
    size, sizes, found = min(n, max(SMALLEST_TRIAL, n_classes)), [], []
    while True:
        rows = np.union1d(order[:size], of_each_class)
        targets = one_hot(np.maximum(codes[rows], 0), n_classes)
        task = Training(work.student, work.X, targets, "student", 0, rows=rows)
        seconds, fitted = _timed(partial(train, task))
        sizes.append(len(rows))
        found.append(seconds)
        larger = min(n, TRIAL_GROWTH * size)
        whole = FITS_OF_WHOLE * seconds * n / len(rows)
        affordable = min(TRIAL_SECONDS, TRIAL_SHARE * whole)
        if larger == size or 2 * TRIAL_GROWTH * seconds > affordable:
            break
        size = larger
    exponent = 1.0
    if len(sizes) > 1:
        growth = np.log(found[-1] / found[-2]) / np.log(sizes[-1] / sizes[-2])
        exponent = float(np.clip(growth, 0.3, 2))
    predicted = order[: min(n, 1000)]
    seconds, _ = _timed(lambda: predict_proba(fitted, work.X, n_classes, predicted))
    last, largest = found[-1], sizes[-1]
    return lambda size: OVERHEAD + last * (size / largest) ** exponent, seconds / len(predicted)


def _time_network(
    work: Work, network: Any, order: np.ndarray
) -> tuple[Callable[[float], float], float]:
    """Time a few steps of a network's training; return seconds by size, and those of predictions.

    The difference of two trainings is the time of the steps, without what a training does once.
    """
    final, n_classes = final_step(network), work.labels.n_classes
    pictures, texts = is_pictures(work.X), is_texts(work.X)
    recipe = find_recipe(final.recipe, "student", pictures=pictures, texts=texts)
    recipe = recipe.changed(epochs=final.epochs)
    rows = order[: recipe.batch_size * TRIAL_STEPS]
    targets = one_hot(np.arange(len(rows)) % n_classes, n_classes)
    steps = math.ceil(len(rows) / recipe.batch_size)
    found, fitted = [], None
    for epochs in (1, 1, 3):  # the first training also sets up the device
        short = clone(network)
        final_step(short).set_params(recipe=recipe.with_epochs(epochs), epochs=None)
        task = Training(short, work.X, targets, "student", 0, rows=rows)
        start = time.perf_counter()
        fitted = train(task)
        found.append(time.perf_counter() - start)
    _, short_seconds, long_seconds = found
    of_step = max(long_seconds - short_seconds, 0.1 * long_seconds) / (2 * steps)
    once = max(short_seconds - of_step * steps, 0.0)

    def of_training(n_samples: float) -> float:
        samples = max(1, round(n_samples))
        n_steps = math.ceil(samples / recipe.batch_size) * recipe.for_n_samples(samples).epochs
        return once + of_step * n_steps

    predicting, _ = _timed(lambda: predict_proba(fitted, work.X, n_classes, rows))
    return of_training, predicting / len(rows)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result; a short call is repeated, as the first one can load modules."""
    found: list[float] = []
    while len(found) < 3 and sum(found) < SHORT:
        start = time.perf_counter()
        result = call()
        found.append(max(time.perf_counter() - start, 1e-6))
    return min(found), result
