"""The numbers the 2021 study printed, and its names for things.

A. Choudhury, H. Ved, A. Vantipuli: Combining Batch Normalization and Dropout in the Training of Deep Neural Networks.
July 3, 2021. It replicates G. Chen et al., 2019, arXiv:1905.05928.
"""

from lib.card import BASELINES, VALIDATION, WEIGHT_LAYERS

# Table 1: test accuracy on CIFAR-10 at the end of training, by (block, depth) and ordering. One run each.
TABLE_1: dict[tuple[str, int], dict[str, float]] = {
    ("basic", 110): {"relu_ic_conv": 0.8226, "ic_conv_relu": 0.8429, "conv_relu_ic": 0.8449, "baseline": 0.6454},
    ("basic", 164): {"relu_ic_conv": 0.8076, "ic_conv_relu": 0.8279, "conv_relu_ic": 0.8402, "baseline": 0.8183},
    ("bottleneck", 110): {"relu_ic_conv": 0.8251, "ic_conv_relu": 0.8355, "conv_relu_ic": 0.8389, "baseline": 0.8159},
    ("bottleneck", 164): {"relu_ic_conv": 0.8218, "ic_conv_relu": 0.8455, "conv_relu_ic": 0.8498, "baseline": 0.8254},
}

# Layers as Figure 2 names them, and the baseline.
LAYER_NAMES = {"relu": "ReLU", "ic": "IC", "conv": "Conv2D", "bn": "BN", "dropout": "Dropout", "baseline": "Baseline"}

TEST_IMAGES = 10_000  # of CIFAR-10, on which these accuracies are measured


def table1_accuracy(block: str, depth: int, ordering: str) -> float | None:
    """Table 1's accuracy, or None for a network or an ordering the study did not train."""
    return TABLE_1.get((block, depth), {}).get(ordering)


def model_name(block: str) -> str:
    """The family as Table 1 names it."""
    return {"basic": "ResNet", "bottleneck": "ResNet-B"}[block]


def ordering_name(ordering: str) -> str:
    """An ordering as Figure 2(b) names it: relu_ic_conv is ReLU-IC-Conv2D; baseline_ic is Baseline-IC.

    Raises KeyError for an unknown layer.
    """
    return "-".join(LAYER_NAMES[layer] for layer in ordering.split("_"))


def unit_name(block: str, ordering: str) -> str:
    """A residual unit's layers as Table 1 names them: 2x{ReLU-IC-Conv2D}, or Baseline."""
    name = ordering_name(ordering)
    return name if ordering in BASELINES else f"{WEIGHT_LAYERS[block]}x{{{name}}}"


def data_name(dataset: str) -> str:
    """A data set's name for titles; the stand-in's is in capitals."""
    names = {"cifar10": "CIFAR-10", VALIDATION: "CIFAR-10 validation", "synthetic": "SYNTHETIC"}
    return names.get(dataset, dataset)


def split_of(dataset: str) -> str:
    """Which images accuracy is measured on: "test", as in the study, or "validation"."""
    return "validation" if dataset == VALIDATION else "test"
