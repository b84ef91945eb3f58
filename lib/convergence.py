"""How a run converged, from its test accuracies alone: how soon, how steadily. Standard library only.

The 2021 study claims "a faster convergence speed" and "a more stable training performance" (Sec. 2.2) and gives no
number for either; these are the numbers. Every function takes the test accuracies of epochs 1, 2, ..., fractions of 1.
"""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise


def epochs_to_reach(level: float, accuracies: Sequence[float]) -> float:
    """The first epoch at whose end the test accuracy is at least `level`; infinite where none is.

    A curve that swings more gets there sooner by luck: see the area under it as well.
    """
    return next((epoch for epoch, accuracy in enumerate(accuracies, start=1) if accuracy >= level), math.inf)


def area_under_curve(accuracies: Sequence[float]) -> float | None:
    """The area under the curve as drawn, by trapezoids, divided by its width: the curve's mean height.

    None for a single epoch, which draws no curve.
    """
    if len(accuracies) < 2:
        return None
    return statistics.fmean((left + right) / 2 for left, right in pairwise(accuracies))


def late_change(accuracies: Sequence[float]) -> float | None:
    """The mean absolute change from an epoch to the next, of the epochs after half the training.

    Of E epochs these are the changes into epochs floor(E / 2) + 1 to E. Where the curve still rises at its end the
    rise is part of it. None for a single epoch.
    """
    if len(accuracies) < 2:
        return None
    half = len(accuracies) // 2
    return statistics.fmean(abs(after - before) for before, after in pairwise(accuracies[half - 1 :]))
