"""The stand-in data set: CIFAR-10's shapes and class count from a seed, for machines without the real one.

Every class has a coarse colour pattern. An image is its class's pattern at a random place, mixed with the fainter
pattern of some other class and with noise: learnable by convolutions, but not from single pixels. All arithmetic is on
integers, so that a seed gives the same bytes on every machine.
"""

import numpy as np

from lib.cifar10 import TEST_FILE, TRAIN_FILES, Split

NAME = "synthetic"
CLASSES = [f"pattern {letter}" for letter in "ABCDEFGHIJ"]
IMAGES_PER_FILE = 10_000


def generate(seed: int, images_per_file: int = IMAGES_PER_FILE) -> dict[str, Split]:
    """The files of the data set and what is in each: five for training, one for testing."""
    generator = np.random.Generator(np.random.PCG64(seed))
    patterns = _patterns(generator)
    return {file: _images(generator, patterns, images_per_file) for file in (*TRAIN_FILES, TEST_FILE)}


def _patterns(generator: np.random.Generator) -> np.ndarray:
    """A smooth colour pattern per class (classes, 32, 32, 3), of mean 0, so that no colour reveals a class."""
    coarse = generator.integers(-128, 128, (len(CLASSES), 8, 8, 3), dtype=np.int32)
    fine: np.ndarray = coarse.repeat(4, axis=1).repeat(4, axis=2)
    for axis in (1, 2):  # a running mean over five pixels, around the edge
        fine = np.stack([np.roll(fine, shift, axis=axis) for shift in range(-2, 3)]).sum(axis=0) // 5
    return fine - fine.sum(axis=(1, 2), keepdims=True) // fine[0, ..., 0].size


def _images(generator: np.random.Generator, patterns: np.ndarray, count: int) -> Split:
    labels = generator.integers(0, len(CLASSES), count)
    others = (labels + generator.integers(1, len(CLASSES), count)) % len(CLASSES)
    images = np.full((count, 32, 32, 3), 128, dtype=np.int32)
    for classes, weight in ((labels, 5), (others, 3)):
        images += weight * _placed(generator, patterns, classes) // 8
    images += generator.integers(-40, 41, images.shape, dtype=np.int32)
    return Split(images.clip(0, 255).astype(np.uint8), labels)


def _placed(generator: np.random.Generator, patterns: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The pattern of each image's class (N, 32, 32, 3), rolled to a random place."""
    shifts = generator.integers(0, 32, (2, len(classes), 1))
    rows, columns = (shifts + np.arange(32)) % 32
    return patterns[classes[:, None, None], rows[:, :, None], columns[:, None, :]]
