"""What a notebook shows of a fitted classifier: scikit-learn's diagram, and what was learned."""

from dataclasses import asdict
from typing import Any

from markupsafe import Markup
from sklearn.utils import estimator_html_repr

from pudistill.distillation.comparison import Comparison, ExpectedAccuracy, LabelAccuracy
from pudistill.distillation.noise_estimate import NoiseEstimate
from pudistill.distillation.sentences import (
    expectation_sentence,
    label_accuracy_sentence,
    noise_sentence,
)
from pudistill.utils.notebook import ShownAsText, block


class ShowsResults:
    """The part of a `PUDistillClassifier` that shows itself in notebooks.

    scikit-learn calls `_repr_html_inner` where a notebook asks for HTML alone, and makes a bundle
    of text and HTML otherwise.
    """

    noise_: NoiseEstimate | None
    comparison_: Comparison | None
    expected_accuracy_: ExpectedAccuracy | None
    label_accuracy_: LabelAccuracy | None

    def _repr_html_inner(self) -> str:
        return estimator_html_repr(self) + self._learned_html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += self._learned_html()
        return bundle

    def _learned_html(self) -> str:
        """Return what was learned; empty before a fit, and where there is nothing to say."""
        noise, comparison = getattr(self, "noise_", None), getattr(self, "comparison_", None)
        of_labels = getattr(self, "label_accuracy_", None)
        expected = getattr(self, "expected_accuracy_", None)
        if noise is None and comparison is None:
            return ""
        sentences, parts = [], []
        if noise is not None:
            sentences.append(noise_sentence(noise.to_dict()))
            parts.append(_folded("The noise in the given labels", noise))
        if of_labels is not None:
            basis = None if noise is None else noise.basis
            sentences.append(label_accuracy_sentence(asdict(of_labels), basis))
        if expected is not None:
            sentences.append(expectation_sentence(asdict(expected)))
        if comparison is not None:
            sentences.append(Markup.escape(comparison.why))
            parts.append(_folded("The models that were compared", comparison))
        return block(sentences, *parts)


def _folded(title: str, part: ShownAsText) -> Markup:
    """Return a result that a click opens."""
    content = Markup(part._repr_html_())
    return Markup("<details><summary>{}</summary>{}</details>").format(title, content)
