"""The numbers that Filan et al. 2020 print, for tables that have them beside ours."""

__all__ = ["ACCURACY", "EFFECT", "MIXTURES", "SHUFFLED", "UNPRUNED"]

SHUFFLED: dict[tuple[str, int], tuple[float, float, float, float, float]] = {
    ("mnist", 2): (0.0, 0.333, 0.003, 0.330, 0.003),
    ("mnist", 4): (0.7, 2.000, 0.035, 2.042, 0.017),
    ("mnist", 7): (1.0, 4.556, 0.052, 4.710, 0.026),
    ("mnist", 10): (1.0, 7.137, 0.042, 7.397, 0.037),
    ("mnist-dropout", 2): (0.0, 0.332, 0.002, 0.323, 0.003),
    ("mnist-dropout", 4): (1.0, 1.840, 0.015, 2.039, 0.019),
    ("mnist-dropout", 7): (1.0, 4.222, 0.035, 4.712, 0.023),
    ("mnist-dropout", 10): (1.0, 6.688, 0.035, 7.421, 0.031),
    ("fashion_mnist", 2): (0.0, 0.319, 0.003, 0.313, 0.003),
    ("fashion_mnist", 4): (1.0, 1.880, 0.030, 1.992, 0.018),
    ("fashion_mnist", 7): (1.0, 4.351, 0.057, 4.613, 0.029),
    ("fashion_mnist", 10): (0.9, 6.975, 0.117, 7.257, 0.036),
    ("fashion_mnist-dropout", 2): (0.0, 0.312, 0.003, 0.312, 0.003),
    ("fashion_mnist-dropout", 4): (1.0, 1.726, 0.022, 2.013, 0.017),
    ("fashion_mnist-dropout", 7): (1.0, 4.079, 0.046, 4.663, 0.029),
    ("fashion_mnist-dropout", 10): (1.0, 6.460, 0.041, 7.339, 0.034),
    ("cifar10", 2): (0.9, 0.306, 0.010, 0.313, 0.006),
    ("cifar10", 4): (0.1, 2.06, 0.14, 2.001, 0.017),
    ("cifar10", 7): (0.1, 4.707, 0.101, 4.647, 0.024),
    ("cifar10", 10): (0.2, 7.331, 0.125, 7.303, 0.031),
    ("cifar10-dropout", 2): (0.9, 0.290, 0.015, 0.308, 0.008),
    ("cifar10-dropout", 4): (0.9, 1.840, 0.089, 1.997, 0.014),
    ("cifar10-dropout", 7): (0.9, 4.373, 0.160, 4.618, 0.035),
    ("cifar10-dropout", 10): (1.0, 6.973, 0.169, 7.298, 0.048),
    ("random", 4): (0.0, 2.093, 0.023, 2.081, 0.014),
    ("random-dropout", 4): (0.0, 2.053, 0.015, 2.061, 0.015),
    ("kilo-epoch", 4): (0.1, 2.082, 0.017, 2.082, 0.014),
    ("kilo-epoch-dropout", 4): (0.3, 2.043, 0.028, 2.061, 0.017),
    ("memorization", 4): (1.0, 1.880, 0.017, 2.008, 0.014),
    ("memorization-dropout", 4): (0.3, 2.038, 0.033, 2.055, 0.023),
}
"""By condition and k, pruned networks: the part that lies below all shuffles, the n-cut and its standard
deviation, mean and standard deviation of the shuffles (tables 1 to 4, A.1 to A.3)."""

UNPRUNED = {
    "mnist": (2.442, 0.015),
    "mnist-dropout": (2.234, 0.031),
    "fashion_mnist": (2.179, 0.007),
    "fashion_mnist-dropout": (2.145, 0.007),
    "cifar10": (2.434, 0.018),
    "cifar10-dropout": (2.149, 0.019),
    "random": (2.338, 0.030),
    "random-dropout": (2.323, 0.020),
    "kilo-epoch": (2.342, 0.022),
    "kilo-epoch-dropout": (2.329, 0.020),
    "memorization": (2.464, 0.014),
    "memorization-dropout": (2.333, 0.018),
}
"""N-cut before pruning and its standard deviation, k = 4 (tables 3 and A.4 to A.15)."""

MIXTURES = {
    "lines": (1.599, 0.049),
    "lines-mnist": (1.760, 0.039),
    "lines-cifar10": (1.632, 0.032),
    "mnist-cifar10": (1.822, 0.025),
    "lines-mnist-sep": (1.842, 0.046),
    "lines-cifar10-sep": (1.536, 0.033),
    "mnist-cifar10-sep": (1.587, 0.041),
    "lines-dropout": (1.144, 0.036),
    "lines-mnist-dropout": (1.272, 0.056),
    "lines-cifar10-dropout": (1.418, 0.031),
    "mnist-cifar10-dropout": (1.784, 0.032),
    "lines-mnist-sep-dropout": (1.517, 0.020),
    "lines-cifar10-sep-dropout": (1.375, 0.038),
    "mnist-cifar10-sep-dropout": (1.517, 0.029),
}
"""N-cut of pruned networks and its standard deviation, k = 4 (tables A.16 and A.17)."""

ACCURACY = {
    "mnist": (1.0, 0.984),
    "mnist-dropout": (0.967, 0.979),
    "fashion_mnist": (0.983, 0.893),
    "fashion_mnist-dropout": (0.863, 0.869),
    "cifar10": (0.650, 0.415),
    "cifar10-dropout": (0.427, 0.422),
    "lines": (1.0, 1.0),
    "lines-mnist": (1.0, 0.991),
    "lines-cifar10": (0.784, 0.708),
    "mnist-cifar10": (0.805, 0.697),
    "lines-mnist-sep": (1.0, 0.994),
    "lines-cifar10-sep": (0.941, 0.817),
    "mnist-cifar10-sep": (0.964, 0.810),
    "lines-dropout": (0.913, 0.312),
    "lines-mnist-dropout": (0.875, 0.635),
    "lines-cifar10-dropout": (0.682, 0.459),
    "mnist-cifar10-dropout": (0.714, 0.694),
    "lines-mnist-sep-dropout": (0.984, 0.885),
    "lines-cifar10-sep-dropout": (0.828, 0.817),
    "mnist-cifar10-sep-dropout": (0.853, 0.826),
    **{name: (0.102, None) for name in ("random", "random-dropout", "kilo-epoch", "kilo-epoch-dropout")},
    "memorization": (1.0, None),
    "memorization-dropout": (0.113, None),
}
"""Of pruned networks: in the last epoch of training, dropout active, and on the test images."""

EFFECT = {
    ("mnist", "unpruned"): -0.02,
    ("mnist-dropout", "unpruned"): -0.09,
    ("mnist", "pruned"): -1.24,
    ("mnist-dropout", "pruned"): 9.45,
    ("fashion_mnist", "unpruned"): 0.01,
    ("fashion_mnist-dropout", "unpruned"): 0.02,
    ("fashion_mnist", "pruned"): 1.72,
    ("fashion_mnist-dropout", "pruned"): 14.89,
    ("cifar10", "unpruned"): -0.04,
    ("cifar10-dropout", "unpruned"): -0.10,
    ("cifar10", "pruned"): -0.29,
    ("cifar10-dropout", "pruned"): 3.85,
}
"""By condition and phase: the mean over the networks of Cohen's d (tables A.4 to A.15)."""
