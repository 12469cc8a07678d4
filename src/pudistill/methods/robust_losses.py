"""Methods that are a robust loss: a network trained as with cross-entropy, but for the loss.

The losses are in `pudistill.learners.networks.robust_losses`. Networks, learning rates and epochs
are the recipe's, not the authors'.
"""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from pudistill.exceptions import InputError
from pudistill.learners.networks.fitting import fit_with_retry
from pudistill.learners.networks.objectives import Objective
from pudistill.learners.networks.robust_losses import (
    ACTIVE,
    PASSIVE,
    ActivePassive,
    GeneralisedCrossEntropy,
    HardBootstrap,
    MeanAbsoluteError,
    SoftBootstrap,
    SymmetricCrossEntropy,
    TaylorCrossEntropy,
)
from pudistill.methods.base import LabelledSamples, NetworkMethod


class RobustLossMethod(NetworkMethod):
    """A method that trains one network with its own loss; subclasses return its objective."""

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        return self._fit_loss(self._objective(), samples, seed)

    def _fit_loss(self, objective: Objective, samples: LabelledSamples, seed: int) -> Any:
        """Train a network on the labels of the samples with an objective."""
        network = self._make_network(seed)
        job = network.make_job(samples.X, samples.targets)
        fit_with_retry(network, replace(job, objective=objective))
        return network

    def _objective(self) -> Objective:
        raise NotImplementedError


def check_weights(**weights: float) -> None:
    """Raise `InputError` if all weights of a loss's terms are zero."""
    if not any(weights.values()):
        names = " and ".join(weights)
        raise InputError(f"{names} are 0, so that nothing is learned: set one to 1.")


class BootstrapSoftClassifier(RobustLossMethod):
    """Train with cross-entropy to a mixture of the given label and the prediction.

    The gradient flows through both, so that the loss is that of the label plus an entropy term,
    which makes predictions confident.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    label_weight : float in (0, 1], default=0.95
        Share of the label, `β`.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    S. Reed, H. Lee, D. Anguelov, C. Szegedy, D. Erhan, A. Rabinovich, "Training Deep Neural
    Networks on Noisy Labels with Bootstrapping", ICLR workshop 2015, equation 6.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import BootstrapSoftClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> BootstrapSoftClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "label_weight": [Interval(Real, 0, 1, closed="right")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        label_weight: float = 0.95,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.label_weight = label_weight
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        return SoftBootstrap(self.label_weight)


class BootstrapHardClassifier(RobustLossMethod):
    """Train with cross-entropy to a mixture of the given label and the most probable class.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    label_weight : float in (0, 1], default=0.8
        Share of the label, `β`.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    S. Reed, H. Lee, D. Anguelov, C. Szegedy, D. Erhan, A. Rabinovich, "Training Deep Neural
    Networks on Noisy Labels with Bootstrapping", ICLR workshop 2015, equation 7.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import BootstrapHardClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> BootstrapHardClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "label_weight": [Interval(Real, 0, 1, closed="right")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        label_weight: float = 0.8,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.label_weight = label_weight
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        return HardBootstrap(self.label_weight)


class MeanAbsoluteErrorClassifier(RobustLossMethod):
    """Train with the distance of predictions from labels, which uniform noise does not move.

    Labels that the network finds improbable have small gradients, right or wrong. So hard classes
    can be learned late or never.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    A. Ghosh, H. Kumar, P. Sastry, "Robust Loss Functions under Label Noise for Deep Neural
    Networks", AAAI 2017; equation 7 and theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import MeanAbsoluteErrorClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> MeanAbsoluteErrorClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        return MeanAbsoluteError()


class GeneralisedCrossEntropyClassifier(RobustLossMethod):
    """Train with a loss between cross-entropy and absolute error, without improbable labels.

    The loss is `(1 - p^q) / q`, where `p` is the probability of the given label. After some epochs,
    labels with `p` below a threshold are not learned. The authors decide that every ten epochs, by
    the network that is best on validation data; here, the network itself decides in each step, and
    only where some class is more probable than the threshold: short trainings would else stop.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    q : float in (0, 1], default=0.7
        Exponent: near 0 cross-entropy, 1 absolute error.
    threshold : float in [0, 1), default=0.5
        Probability below which labels are not learned, `k`; 0 switches that off.
    warm_up : float in [0, 1], default=1 / 3
        Share of the epochs in which all labels are learned: 40 of the authors' 120.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    Z. Zhang, M. R. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
    Noisy Labels", NeurIPS 2018; equations 6 to 9.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import GeneralisedCrossEntropyClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> classifier = GeneralisedCrossEntropyClassifier(random_state=0)
    >>> classifier.fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "q": [Interval(Real, 0, 1, closed="right")],
        "threshold": [Interval(Real, 0, 1, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        q: float = 0.7,
        threshold: float = 0.5,
        warm_up: float = 1 / 3,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.q = q
        self.threshold = threshold
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        return GeneralisedCrossEntropy(self.q, self.threshold, self.warm_up)


class SymmetricCrossEntropyClassifier(RobustLossMethod):
    """Train with cross-entropy plus reverse cross-entropy, of labels to predictions.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    forward_weight : float, default=0.1
        Weight of the cross-entropy, `α`; 0.1 is the authors' value for CIFAR-10.
    reverse_weight : float, default=1.0
        Weight of the reverse cross-entropy, `β`.
    smallest_label : float in (0, 1), default=1e-4
        What replaces the zeros of labels, whose logarithm the reverse cross-entropy takes; as in
        the authors' code.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    Y. Wang, X. Ma, Z. Chen, Y. Luo, J. Yi, J. Bailey, "Symmetric Cross Entropy for Robust Learning
    with Noisy Labels", ICCV 2019, equations 5 and 6.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import SymmetricCrossEntropyClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> SymmetricCrossEntropyClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "forward_weight": [Interval(Real, 0, None, closed="left")],
        "reverse_weight": [Interval(Real, 0, None, closed="left")],
        "smallest_label": [Interval(Real, 0, 1, closed="neither")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        forward_weight: float = 0.1,
        reverse_weight: float = 1.0,
        smallest_label: float = 1e-4,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.forward_weight = forward_weight
        self.reverse_weight = reverse_weight
        self.smallest_label = smallest_label
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        check_weights(forward_weight=self.forward_weight, reverse_weight=self.reverse_weight)
        return SymmetricCrossEntropy(self.forward_weight, self.reverse_weight, self.smallest_label)


class TaylorCrossEntropyClassifier(RobustLossMethod):
    """Train with the first terms of the Taylor series of cross-entropy.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    order : int, default=2
        Number of terms: 1 is absolute error, many are cross-entropy.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    L. Feng, S. Shu, Z. Lin, F. Lv, L. Li, B. An, "Can Cross Entropy Loss Be Robust to Label
    Noise?", IJCAI 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import TaylorCrossEntropyClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> TaylorCrossEntropyClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "order": [Interval(Integral, 1, None, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        order: int = 2,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.order = order
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        return TaylorCrossEntropy(int(self.order))


class ActivePassiveClassifier(RobustLossMethod):
    """Train with a normalised loss plus a loss that lowers the other classes.

    A loss divided by its sum over all classes is robust to uniform noise, but learns slowly alone;
    the second loss, which is robust by itself, helps.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    active : {"cross_entropy", "focal_loss"}, default="cross_entropy"
        The loss that is normalised.
    passive : {"mean_absolute_error", "reverse_cross_entropy"}, default="reverse_cross_entropy"
        The loss that is added.
    active_weight : float, default=1.0
        Weight of the normalised loss, `α`.
    passive_weight : float, default=1.0
        Weight of the other loss, `β`; 0: the normalised loss alone. Both are the authors' for
        CIFAR-10.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    X. Ma, H. Huang, Y. Wang, S. Romano, S. Erfani, J. Bailey, "Normalized Loss Functions for Deep
    Learning with Noisy Labels", ICML 2020; equations 4 and 12.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import ActivePassiveClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> ActivePassiveClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "active": [StrOptions(set(ACTIVE))],
        "passive": [StrOptions(set(PASSIVE))],
        "active_weight": [Interval(Real, 0, None, closed="left")],
        "passive_weight": [Interval(Real, 0, None, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        active: str = "cross_entropy",
        passive: str = "reverse_cross_entropy",
        active_weight: float = 1.0,
        passive_weight: float = 1.0,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.active = active
        self.passive = passive
        self.active_weight = active_weight
        self.passive_weight = passive_weight
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _objective(self) -> Objective:
        check_weights(active_weight=self.active_weight, passive_weight=self.passive_weight)
        return ActivePassive(self.active, self.passive, self.active_weight, self.passive_weight)
