"""What makes a network learn: losses on logits."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.special import xlogy


def soft_loss(logits: Tensor, targets: Tensor, entropy_weight: float = 0.0) -> Tensor:
    """Cross-entropy with soft targets, plus the entropy of the predictions, paper equation (2).

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers.
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
    loss = -(targets * log_probabilities).sum(dim=1)
    if entropy_weight:
        loss = loss + entropy_weight * targets.sum(dim=1) * _entropy(log_probabilities)
    return loss.mean()


def likelihood_loss(
    logits: Tensor, log_likelihood: Tensor, weights: Tensor, entropy_weight: float = 0.0
) -> Tensor:
    r"""Negative log-likelihood of what is known of the labels: the corrected likelihood.

    A sample's loss is :math:`-\log \sum_c p(c \mid x) L_c`, where :math:`L_c` is the probability of
    what is known of its label if it were of class c. Where L is positive for one class only, that
    is the cross-entropy, up to a constant; where nothing is known, all :math:`L_c` are the same and
    the sample teaches nothing. Its gradient is that of the cross-entropy with the `posterior` as
    the target: every step is one of expectation-maximisation, with the network as its own teacher.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers.
    log_likelihood : Tensor of shape (n, n_classes)
        log L, which may be minus infinity, but not for all of a row.
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
        loss = loss + entropy_weight * _entropy(log_probabilities)
    return (weights * loss).mean()


def posterior(logits: Tensor, log_likelihood: Tensor) -> Tensor:
    """Class probabilities given the sample and what is known of its label, ∝ p(c | x) L_c.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers. No gradient flows back to it.
    log_likelihood : Tensor of shape (n, n_classes)
        As for `likelihood_loss`.

    Returns
    -------
    posterior : Tensor of shape (n, n_classes)
        Rows sum to 1.
    """
    return (logits.detach().log_softmax(dim=1) + log_likelihood).softmax(dim=1)


def consistency_loss(
    logits: Tensor, posterior: Tensor, weights: Tensor, threshold: float
) -> Tensor:
    """Cross-entropy of strongly augmented views to the class that the weak views are sure of.

    FixMatch's scheme [1]_ with the posterior in place of the prediction. Where nothing is known of
    any label but the trusted ones, it is FixMatch.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers to the strongly augmented views.
    posterior : Tensor of shape (n, n_classes)
        Class probabilities of the same samples by their weakly augmented views.
    weights : Tensor of shape (n,)
        Sample weights.
    threshold : float
        Samples count whose largest posterior is at least this.

    Returns
    -------
    loss : Tensor of shape ()
        Sum over the samples that count, divided by the number of all.

    References
    ----------
    .. [1] K. Sohn et al., "FixMatch: Simplifying semi-supervised learning with consistency and
       confidence", NeurIPS 2020.
    """
    confidence, label = posterior.max(dim=1)
    counts = weights * (confidence >= threshold)
    return (counts * cross_entropy(logits, label, reduction="none")).mean()


def prior_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Divergence of the mean prediction of a batch from the classes' shares, KL(prior || mean).

    Keeps a network that learns from its own predictions from finding one class everywhere.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers.
    prior : Tensor of shape (n_classes,)
        Shares of the classes, which sum to 1.

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


def _entropy(log_probabilities: Tensor) -> Tensor:
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)
