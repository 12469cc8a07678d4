"""What a learner can do: its final step, weights, scores, continued training."""

from typing import Any

from sklearn.base import clone
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from pudistill.exceptions import InputError


def final_step(estimator: Any) -> Any:
    """Return the last step of a pipeline, nested or not; any other learner is returned itself."""
    return final_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def continues_training(estimator: Any) -> bool:
    """Whether a learner is a network, which can continue training from its weights."""
    return getattr(final_step(estimator), "continues_training", False)


def has_trunk(estimator: Any) -> bool:
    """Whether a learner is a network whose layers, except the last, can be shared."""
    return hasattr(final_step(estimator), "embed")


def with_share_of_trees(estimator: Any, n_members: int) -> Any:
    """Divide the trees of a random forest, or of another bagging ensemble, among members.

    Members that vote together are one ensemble: together they have the trees that the user wants.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from pudistill.learners.capabilities import with_share_of_trees
    >>> with_share_of_trees(RandomForestClassifier(100), 4)
    RandomForestClassifier(n_estimators=25)
    """
    # Imported here, as few learners need it.
    from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier

    of_trees = (RandomForestClassifier, ExtraTreesClassifier, BaggingClassifier)
    if not isinstance(final_step(estimator), of_trees):
        return estimator
    estimator = clone(estimator)
    final = final_step(estimator)
    final.set_params(n_estimators=-(-final.n_estimators // n_members))
    return estimator


def needs_calibration(estimator: Any) -> bool:
    """Whether a learner has a ``decision_function``, but no ``predict_proba``."""
    return not hasattr(estimator, "predict_proba") and hasattr(estimator, "decision_function")


def resamples(pipeline: Pipeline) -> bool:
    """Whether a step draws samples anew, as in imbalanced-learn's pipelines."""
    return any(hasattr(step, "fit_resample") for _, step in pipeline.steps)


def takes_weights(learner: Any) -> bool:
    """Whether ``fit`` takes sample weights, and so does every learner that it hands them on to.

    A pipeline that resamples takes none: its last step learns from other samples.
    """
    if isinstance(learner, Pipeline):
        return not resamples(learner) and takes_weights(learner.steps[-1][1])
    if hands_on_fit_params(learner):
        return takes_weights(learner.estimator)
    inner = getattr(learner, "estimator", None)
    learners = [learner] if inner is None else [learner, inner]
    return all(has_fit_parameter(each, "sample_weight") for each in learners)


def hands_on_fit_params(learner: Any) -> bool:
    """Whether ``fit`` hands all further parameters on to ``estimator``, as a search does."""
    return isinstance(learner, BaseSearchCV)


def check_gives_scores(learner: Any, method: str) -> None:
    """Raise an `InputError` if a learner lacks the method that gives its scores."""
    if not hasattr(learner, method):
        raise InputError(
            f"{type(learner).__name__} has neither predict_proba nor decision_function: use a "
            "classifier that gives scores."
        )
