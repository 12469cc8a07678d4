"""What a page can ask for; without the imports that take long, as the page is there before them."""

from dataclasses import dataclass

SCOPES = ("queue", "all", "decided")
"""Samples of the queue, all that nobody has verified, and those that were decided."""


@dataclass(frozen=True)
class Filter:
    """Which samples to show; None and an empty text leave nothing out.

    Attributes
    ----------
    given, label : str, optional
        The given and the corrected label.
    source : str, optional
        What decided the label, one of `SOURCES`.
    changed : bool, optional
        Whether the label was changed.
    low, high : float in [0, 1]
        Range of the confidence.
    search : str
        Part of the id, or of the text if the samples are texts.
    """

    given: str | None = None
    label: str | None = None
    source: str | None = None
    changed: bool | None = None
    low: float = 0.0
    high: float = 1.0
    search: str = ""

    @property
    def is_active(self) -> bool:
        """Whether anything is left out."""
        return self != Filter()
