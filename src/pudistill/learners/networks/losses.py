"""Losses of logits."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.special import xlogy

SMALLEST_VARIANCE = 1e-6


def soft_loss(logits: Tensor, targets: Tensor, entropy_weight: float = 0.0) -> Tensor:
    """Cross-entropy with soft targets, plus the entropy of the predictions, paper equation (2).

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        The network's output.
    targets : Tensor of shape (n, n_classes)
        Target probabilities, each row multiplied by the sample's weight.
    entropy_weight : float, default=0.0
        Weight of the entropy regularisation.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over the batch.
    """
    log_probabilities = logits.log_softmax(dim=1)
    return sample_losses(-log_probabilities, log_probabilities, targets, entropy_weight).mean()


def sample_losses(
    losses: Tensor, log_probabilities: Tensor, targets: Tensor, entropy_weight: float
) -> Tensor:
    """Loss of each sample from those of all classes, plus the entropy of its prediction.

    Parameters
    ----------
    losses : Tensor of shape (n, n_classes)
        The loss that each class would have as the label.
    log_probabilities : Tensor of shape (n, n_classes)
        The network's predictions.
    targets, entropy_weight : Tensor of shape (n, n_classes), float
        As for `soft_loss`.

    Returns
    -------
    losses : Tensor of shape (n,)
        Multiplied by the samples' weights, as the targets are.
    """
    loss = (targets * losses).sum(dim=1)
    if entropy_weight:
        loss = loss + entropy_weight * targets.sum(dim=1) * entropy(log_probabilities)
    return loss


def likelihood_loss(
    logits: Tensor, log_likelihood: Tensor, weights: Tensor, entropy_weight: float = 0.0
) -> Tensor:
    r"""Negative log-likelihood of the given labels, which can be wrong: the corrected likelihood.

    A sample's loss is :math:`-\log \sum_c p(c \mid x) L_c`, where :math:`L_c` is the probability of
    its given label if the sample is of class c. If L is positive for one class only, that is the
    cross-entropy, up to a constant. If nothing is known of the label, all :math:`L_c` are equal and
    the gradient is zero. In general the gradient is that of the cross-entropy with
    `label_posterior` as the target: every step is one of expectation-maximisation.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        The network's output.
    log_likelihood : Tensor of shape (n, n_classes)
        log L, which can be minus infinity, but not in a whole row.
    weights : Tensor of shape (n,)
        Sample weights.
    entropy_weight : float, default=0.0
        Weight of the entropy regularisation.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over the batch.
    """
    log_probabilities = logits.log_softmax(dim=1)
    loss = -(log_probabilities + log_likelihood).logsumexp(dim=1)
    if entropy_weight:
        loss = loss + entropy_weight * entropy(log_probabilities)
    return (weights * loss).mean()


def label_posterior(logits: Tensor, log_likelihood: Tensor) -> Tensor:
    """Class probabilities given the sample and its given label, ∝ p(c | x) L_c.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        The network's output. No gradient flows back to it.
    log_likelihood : Tensor of shape (n, n_classes)
        As for `likelihood_loss`.

    Returns
    -------
    posterior : Tensor of shape (n, n_classes)
        Rows sum to 1.
    """
    return (logits.detach().log_softmax(dim=1) + log_likelihood).softmax(dim=1)


def consistency_loss(logits: Tensor, posterior: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of strongly augmented views, with the weak views' likeliest class as the label.

    FixMatch's scheme [1]_ with the posterior in place of the prediction. If nothing is known of any
    label except the trusted labels, it is FixMatch.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        The network's output for the strongly augmented views.
    posterior : Tensor of shape (n, n_classes)
        Class probabilities of the same samples from their weakly augmented views.
    weights : Tensor of shape (n,)
        Weights of the samples, such as those of `confidence_weights`.

    Returns
    -------
    loss : Tensor of shape ()
        Weighted sum, divided by the number of samples.

    References
    ----------
    .. [1] K. Sohn et al., "FixMatch: Simplifying semi-supervised learning with consistency and
       confidence", NeurIPS 2020.
    """
    losses = cross_entropy(logits, posterior.argmax(dim=1), reduction="none")
    return (weights * losses).mean()


def confidence_weights(confidence: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Weights of the consistency term that adapt to how sure the network is, as in SoftMatch [1]_.

    A sample counts fully if its confidence is at least the mean, and less the farther it is below:
    by a Gaussian curve of half the standard deviation. So even in the first steps, when nothing is
    clear, the surest half is learned.

    Parameters
    ----------
    confidence : Tensor of shape (n,)
        Largest posterior of each sample.
    mean, variance : Tensor of shape ()
        Running mean and variance of the confidence.

    Returns
    -------
    weights : Tensor of shape (n,)
        In (0, 1].

    References
    ----------
    .. [1] H. Chen et al., "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised
       Learning", ICLR 2023, equations 7 to 9.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.losses import confidence_weights
    >>> confidence_weights(torch.tensor([0.9, 0.5]), torch.tensor(0.7), torch.tensor(0.04))
    tensor([1.0000, 0.1353])
    """
    below = (confidence - mean).clamp_max(0)
    return (-(below**2) / (2 * variance / 4).clamp_min(SMALLEST_VARIANCE)).exp()


def kept_share(noise_rate: float, warm_up: float, epoch: int, n_epochs: int) -> float:
    """Return the share of a batch to learn from, which falls from 1 to ``1 - noise_rate``.

    Parameters
    ----------
    noise_rate : float in [0, 1]
        Share of the samples that is left out at the end.
    warm_up : float in [0, 1]
        Share of the epochs in which that share rises from 0.
    epoch, n_epochs : int
        Number of the epoch, from 0, and of all epochs.

    Returns
    -------
    share : float in [0, 1]

    Examples
    --------
    >>> from pudistill.learners.networks.losses import kept_share
    >>> [kept_share(0.5, 0.25, epoch, 8) for epoch in range(4)]
    [1.0, 0.75, 0.5, 0.5]
    """
    return 1 - noise_rate * min(epoch / max(1.0, warm_up * n_epochs), 1)


def split_by_loss(
    losses: Tensor, share: float, trusted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split a batch into the samples of smallest loss and the others.

    Parameters
    ----------
    losses : Tensor of shape (n,)
        Losses of the samples.
    share : float in [0, 1]
        Share of the samples that is kept; at least one sample is, and all trusted samples are.
    trusted : Tensor of shape (n,), bool, or None, default=None
        Samples that are kept whatever their loss.

    Returns
    -------
    kept, others : Tensor of shape (n_kept,), (n - n_kept,), int64
        Positions in the batch: first those of trusted samples, then by loss.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.losses import split_by_loss
    >>> split_by_loss(torch.tensor([3.0, 1.0, 4.0, 2.0]), share=0.5)
    (tensor([1, 3]), tensor([0, 2]))
    """
    ranked, n_kept = losses.detach(), max(1, int(share * len(losses)))
    if trusted is not None:
        ranked = ranked.masked_fill(trusted, -math.inf)
        n_kept = max(n_kept, int(trusted.sum()))
    order = ranked.argsort(stable=True)
    return order[:n_kept], order[n_kept:]


def prior_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Divergence of a batch's mean prediction from the prior of the classes, KL(prior || mean).

    It keeps a network that learns from its own predictions from predicting one class only.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        The network's output.
    prior : Tensor of shape (n_classes,)
        Prior probabilities of the classes, which sum to 1.

    Returns
    -------
    loss : Tensor of shape ()
        At least 0.

    References
    ----------
    D. Tanaka, D. Ikami, T. Yamasaki, K. Aizawa, "Joint Optimization Framework for Learning with
    Noisy Labels", CVPR 2018, equation 7.
    """
    log_mean = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))
    return (xlogy(prior, prior) - prior * log_mean).sum()


def entropy(log_probabilities: Tensor) -> Tensor:
    """Return the entropy of each row of predictions, (n,)."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)
