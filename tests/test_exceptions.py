import warnings

import numpy as np
import pytest

from pudistill import PUDistillClassifier
from pudistill.cli import console
from pudistill.exceptions import (
    DataNotice,
    DataWarning,
    DivergedError,
    TrustedWarning,
    as_input_error,
    warn_user,
)


def test_a_warning_points_at_the_line_that_called_the_package():
    X = np.repeat(np.arange(2.0), 20)[:, None]
    y = np.repeat([0, 1], 20)
    trusted = np.arange(40) % 10 < 3
    trusted[21:] = False  # one trusted sample of class 1: none can be held out
    with pytest.warns(TrustedWarning, match="could be held out") as caught:
        PUDistillClassifier(random_state=0, n_members=2, max_iter=1).fit(X, y, trusted=trusted)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_outside_the_package_points_at_its_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_user("look twice", TrustedWarning)
    assert [(str(w.message), w.category, w.filename) for w in caught] == [
        ("look twice", TrustedWarning, __file__)
    ]


def test_an_error_for_users_keeps_its_class():
    with pytest.raises(DivergedError), as_input_error():
        raise DivergedError("The loss became nan.")


def test_a_notice_is_no_warning(capsys):
    for message in (DataNotice("'Status' holds the labels."), DataWarning("'id' is not used.")):
        console.show_warning(message)
    assert capsys.readouterr().err.splitlines() == [
        "Note: 'Status' holds the labels.",
        "Warning: 'id' is not used.",
    ]
