"""The paper's numbers, which ours are compared with, and settings of its authors' code.

All accuracies are test accuracies in %, the best over epochs, of a PreAct ResNet-18 on CIFAR-10
with 10 % trusted samples, unless a comment says otherwise.
"""

from typing import Any

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

CIFAR10, CLOTHING1M = "CIFAR-10", "Clothing1M"
# λ, η, α, θ, N and K on Clothing1M.
ON_CLOTHING1M = {
    "blend": 0.5,
    "min_confidence": 0.8,
    "threshold": 0.95,
    "min_votes": 10,
    "n_members": 10,
    "max_iter": 6,
}

# Precision and size of the clean set, by class and then over all classes, on 10,000 test samples of
# CIFAR-10 and 14,313 validation samples of Clothing1M.
TABLE_1: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {
    CIFAR10: (
        (0.92, 0.98, 0.93, 0.80, 0.90, 0.93, 0.96, 0.97, 0.96, 0.97, 0.94),
        (413, 586, 281, 219, 306, 368, 462, 456, 575, 538, 4204),
    ),
    CLOTHING1M: (
        (
            *(0.94, 0.83, 0.46, 0.95, 0.78, 0.93, 0.69, 0.54, 0.93, 0.95, 0.96, 0.58, 0.82, 0.91),
            0.85,
        ),
        (298, 142, 166, 736, 651, 554, 247, 273, 498, 480, 272, 173, 680, 624, 5794),
    ),
}

# For each η: accuracy of the teachers on samples of which they are confident, and the number of
# these samples; the data are those of table 1.
TABLE_2 = {
    CIFAR10: {
        0.9: (99.3, 1313),
        0.8: (98.0, 4845),
        0.7: (95.6, 6492),
        0.6: (93.0, 7561),
        0.5: (89.8, 8487),
        0.0: (82.5, 10_000),
    },
    CLOTHING1M: {
        0.9: (94.6, 5635),
        0.8: (91.3, 8219),
        0.7: (88.1, 9950),
        0.6: (85.1, 11_407),
        0.5: (82.0, 12_808),
        0.0: (77.7, 14_313),
    },
}

TABLE_3 = {  # accuracy on Clothing1M
    "cross_entropy": 68.94,
    "forward_correction": 69.84,
    "jocor": 70.30,
    "loss_correction": 71.00,
    "joint_optimization": 72.23,
    "l_dmi": 72.46,
    "metacleaner": 72.50,
    "mlnt": 73.47,
    "deepself": 74.45,
    "cleannet": 74.69,
    "dividemix": 74.76,
    "paper": 77.70,
}

# Accuracy of teachers with and without mixup, bootstrap, entropy regularisation.
TABLE_4 = {
    CIFAR10: {
        (False, False, False): 76.88,
        (True, False, False): 80.68,
        (False, True, False): 77.31,
        (False, True, True): 77.12,
        (True, True, False): 81.05,
        (True, True, True): 81.45,
    },
    CLOTHING1M: {
        (False, False, False): 77.27,
        (True, False, False): 77.57,
        (False, True, False): 76.97,
        (False, True, True): 77.68,
        (True, True, False): 77.75,
        (True, True, True): 77.18,
    },
}

TABLE_5 = {  # accuracy under asymmetric noise at the levels of `LEVELS`
    "cross_entropy": (88.30, 84.28, 77.40, 67.54, 61.72, 57.24, 52.70),
    "mixup": (90.53, 86.59, 78.67, 69.19, 62.52, 57.90, 53.30),
    "joint_optimization": (92.01, 89.56, 84.56, 78.21, 76.70, 76.44, 76.00),
    "co_teaching": (84.50, 70.69, 54.29, 48.76, 46.40, 45.66, 44.39),
    "loss_correction": (90.87, 87.21, 74.63, 58.82, 58.06, 53.72, 53.04),
    "jocor": (76.57, 67.74, 56.54, 48.52, 46.22, 43.74, 43.06),
    "dividemix": (93.95, 84.43, 73.73, 60.13, 53.18, 50.60, 49.42),
    "paper": (90.00, 88.22, 85.98, 84.41, 83.77, 83.00, 82.63),
}

# Accuracy of students with and without mixup, entropy regularisation: under symmetric noise, then
# under asymmetric noise, at the levels of `TABLE_6_LEVELS`.
TABLE_6 = {
    (False, False): ((84.74, 81.06, 77.39, 73.29), (87.32, 82.91, 76.34, 70.32)),
    (True, False): ((88.90, 85.34, 81.82, 76.94), (89.30, 84.93, 77.72, 71.25)),
    (False, True): ((86.52, 83.26, 79.68, 74.58), (87.41, 82.98, 76.16, 70.33)),
    (True, True): ((90.10, 87.12, 83.52, 78.88), (90.00, 85.66, 77.20, 70.52)),
}
TABLE_6_LEVELS = (0.3, 0.5, 0.7, 0.9)

# λ and η that the authors pass to their code, by kind and level of the noise.
TUNED = {
    "symmetric": {
        0.3: (0.4, 0.8),
        0.4: (0.5, 0.9),
        0.5: (0.5, 0.6),
        0.6: (0.5, 0.5),
        0.7: (0.9, 0.6),
        0.8: (0.9, 0.5),
        0.9: (0.9, 0.5),
    },
    "asymmetric": {
        0.3: (0.4, 0.8),
        0.4: (0.4, 0.6),
        0.5: (0.5, 0.5),
        0.6: (0.7, 0.5),
        0.7: (0.8, 0.5),
        0.8: (0.9, 0.5),
        0.9: (0.9, 0.5),
    },
}


def tuned(noise: str, level: float) -> dict[str, Any]:
    """Return the authors' λ and η for a kind and level of noise, as classifier parameters."""
    blend, min_confidence = TUNED[noise][round(level, 1)]
    return {"blend": blend, "min_confidence": min_confidence}
