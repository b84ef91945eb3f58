"""How a run converged, from its test accuracies alone: how soon, how steadily. Standard library only.

The 2021 study claims "a faster convergence speed" and "a more stable training performance" (Sec. 2.2) but gives no
number for either; these are such numbers. Every function takes the test accuracies of epochs 1, 2, ..., fractions of 1.
"""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise


def epochs_to_reach(level: float, accuracies: Sequence[float]) -> float:
    """The first epoch at whose end the test accuracy is at least `level`; infinite if there is none.

    A noisier curve gets there sooner by chance: look at the area under it as well.
    """
    return next((epoch for epoch, accuracy in enumerate(accuracies, start=1) if accuracy >= level), math.inf)


def area_under_curve(accuracies: Sequence[float]) -> float | None:
    """The area under the curve, by the trapezoidal rule, divided by its width: its mean height.

    None for a single epoch, which gives no curve.
    """
    if len(accuracies) < 2:
        return None
    return statistics.fmean((left + right) / 2 for left, right in pairwise(accuracies))


def late_change(accuracies: Sequence[float]) -> float | None:
    """The mean absolute change from one epoch to the next, in the second half of training.

    Of E epochs these are the changes into epochs floor(E / 2) + 1 to E. If the curve is still rising, its rise is
    included. None for a single epoch.
    """
    if len(accuracies) < 2:
        return None
    half = len(accuracies) // 2
    return statistics.fmean(abs(after - before) for before, after in pairwise(accuracies[half - 1 :]))
