"""lib/batches.py against plain arithmetic."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lib import cifar10
from lib.batches import Batches, channel_statistics
from lib.cifar10 import Split

CPU = torch.device("cpu")
RAW = (torch.zeros(3), torch.ones(3))  # statistics that leave the bytes as they are


def numbered(count: int, seed: int = 0) -> Split:
    """Noise images that are all different; each one's label is its number."""
    images = np.random.default_rng(seed).integers(1, 256, (count, 32, 32, 3), dtype=np.uint8)  # 0 is the padding's
    return Split(images, np.arange(count))


def collected(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[np.ndarray, list[int]]:
    """All images (N, 32, 32, 3), as floats, and all labels of a pass."""
    images, labels = zip(*batches, strict=True)
    return torch.cat(images).permute(0, 2, 3, 1).numpy(), torch.cat(labels).tolist()


# Normalisation.


def test_channel_statistics_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1234, 32, 32, 3), dtype=np.uint8)  # counted in two parts
    mean, std = channel_statistics(images)
    assert mean.shape == std.shape == (3,)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_channel_statistics_keep_the_colours_apart() -> None:
    images = np.zeros((4, 32, 32, 3), np.uint8)
    images[..., 1] = 100
    images[:2, ..., 2] = 255
    mean, std = channel_statistics(images)
    assert mean.tolist() == [0, 100, 127.5]
    assert std.tolist() == [0, 0, 127.5]


@pytest.mark.parametrize("way", ["in_order", "shuffled"])
def test_the_training_sets_batches_have_mean_zero_and_deviation_one(stand_in: Path, way: str) -> None:
    train = cifar10.load(stand_in, "auto", 200, 40).train
    batches = Batches(train, channel_statistics(train.images), 32, CPU)
    images, _ = collected(batches.in_order() if way == "in_order" else batches.shuffled(1, "none"))
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(images.std(axis=(0, 1, 2), dtype=np.float64), 1, atol=1e-5)


def test_the_statistics_given_are_used_and_not_the_splits_own() -> None:
    split = numbered(5)
    batches = Batches(split, (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 8.0])), 2, CPU)
    images, _ = collected(batches.in_order())
    assert np.array_equal(images, (split.images - np.array([1.0, 2.0, 3.0])) / np.array([2.0, 4.0, 8.0]))


# Batches.


def test_batches_are_float_images_and_integer_labels(stand_in: Path) -> None:
    train = cifar10.load(stand_in, "auto", 200, 40).train
    batches = Batches(train, RAW, 32, CPU)
    for images, labels in (next(batches.in_order()), next(batches.shuffled(0, "crop_flip"))):
        assert (images.shape, images.dtype) == ((32, 3, 32, 32), torch.float32)
        assert (labels.shape, labels.dtype) == ((32,), torch.int64)


@pytest.mark.parametrize("way", ["in_order", "none", "crop_flip"])
@pytest.mark.parametrize(
    "count, size, sizes", [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (9, 4, [4, 4, 1]), (3, 100, [3]), (1, 1, [1])]
)
def test_the_last_batch_is_as_small_as_need_be(way: str, count: int, size: int, sizes: list[int]) -> None:
    batches = Batches(numbered(count), RAW, size, CPU)
    served = batches.in_order() if way == "in_order" else batches.shuffled(3, way)
    assert [(len(images), len(labels)) for images, labels in served] == [(each, each) for each in sizes]
    assert len(batches) == count


def test_in_order_keeps_the_order_and_the_images() -> None:
    split = numbered(23)
    batches = Batches(split, RAW, 5, CPU)
    for _ in range(2):
        images, labels = collected(batches.in_order())
        assert labels == list(range(23))
        assert np.array_equal(images, split.images)


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_a_shuffled_pass_has_every_image_exactly_once(augmentation: str, seed: int) -> None:
    _, labels = collected(Batches(numbered(53), RAW, 8, CPU).shuffled(seed, augmentation))
    assert sorted(labels) == list(range(53))
    following = sum(second == first + 1 for first, second in itertools.pairwise(labels))
    assert following < 10  # about one, in a shuffle; of a set that is only cut, 51


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_the_same_seed_gives_the_same_batches_and_another_seed_others(augmentation: str) -> None:
    batches = Batches(numbered(53), RAW, 8, CPU)
    torch.manual_seed(1)
    images, labels = collected(batches.shuffled(5, augmentation))
    torch.manual_seed(2)  # the global generator has no part in it
    state = torch.get_rng_state()
    again, labels_again = collected(batches.shuffled(5, augmentation))
    assert torch.equal(torch.get_rng_state(), state)
    assert labels == labels_again
    assert np.array_equal(images, again)
    _, others = collected(batches.shuffled(6, augmentation))
    assert labels != others


def test_two_passes_at_once_do_not_disturb_each_other() -> None:
    batches = Batches(numbered(20), RAW, 6, CPU)
    alone, _ = collected(batches.shuffled(5, "crop_flip"))
    pairs = list(zip(batches.shuffled(5, "crop_flip"), batches.shuffled(6, "crop_flip"), strict=True))
    together, _ = collected(iter([first for first, _ in pairs]))
    assert np.array_equal(alone, together)


def test_images_are_padded_once_for_all_passes_of_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU every copy would take 240 MB."""
    batches, pad, padded = Batches(numbered(20), RAW, 6, CPU), torch.nn.functional.pad, []
    monkeypatch.setattr(torch.nn.functional, "pad", lambda *how: padded.append(how) or pad(*how))
    for seed in (5, 6):
        collected(batches.shuffled(seed, "crop_flip"))
    assert len(padded) == 1


def test_the_order_depends_on_the_seed_alone() -> None:
    _, order = collected(Batches(numbered(53), RAW, 8, CPU).shuffled(5, "none"))
    for other in (
        Batches(numbered(53), RAW, 8, CPU).shuffled(5, "crop_flip"),
        Batches(numbered(53, seed=1), RAW, 8, CPU).shuffled(5, "none"),
        Batches(numbered(53), RAW, 17, CPU).shuffled(5, "crop_flip"),
    ):
        assert collected(other)[1] == order


def test_without_augmentation_images_stay_as_they_are() -> None:
    split = numbered(53)
    images, labels = collected(Batches(split, RAW, 8, CPU).shuffled(5, "none"))
    assert np.array_equal(images, split.images[labels])


# Augmentation.


def reconstructed(image: np.ndarray, source: np.ndarray) -> list[tuple[int, int, bool]]:
    """Every (row, column, mirrored) by which a crop of the black-padded source gives the image exactly."""
    padded = np.pad(source, ((4, 4), (4, 4), (0, 0)))
    crops = np.lib.stride_tricks.sliding_window_view(padded, (32, 32), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    found = []
    for mirrored, wanted in ((False, image), (True, image[:, ::-1])):
        rows, columns = np.nonzero((crops == wanted).all(axis=(2, 3, 4)))
        found += [(int(row), int(column), mirrored) for row, column in zip(rows, columns, strict=True)]
    return found


@pytest.fixture(scope="module")
def augmented() -> list[list[tuple[int, int, bool]]]:
    """How each image of an augmented pass came from its source."""
    split = numbered(400)
    images, labels = collected(Batches(split, RAW, 64, CPU).shuffled(11, "crop_flip"))
    return [reconstructed(image, split.images[label]) for image, label in zip(images, labels, strict=True)]


def test_every_augmented_image_is_one_crop_of_its_black_padded_source(
    augmented: list[list[tuple[int, int, bool]]],
) -> None:
    assert [len(ways) for ways in augmented] == [1] * 400


def test_crops_come_from_everywhere_and_about_half_are_mirrored(
    augmented: list[list[tuple[int, int, bool]]],
) -> None:
    (rows, columns, mirrored) = zip(*(ways[0] for ways in augmented), strict=True)
    for places in (rows, columns):
        counts = np.bincount(places, minlength=9)
        assert len(counts) == 9
        assert counts.min() > 400 / 9 / 2  # expected 44 +- 6 each
    assert 160 < sum(mirrored) < 240  # expected 200 +- 10
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.2
    assert abs(np.corrcoef(rows, mirrored)[0, 1]) < 0.2


def test_augmentation_is_drawn_anew_for_every_seed() -> None:
    split = numbered(30)
    drawn = []
    for seed in (1, 2):
        images, labels = collected(Batches(split, RAW, 30, CPU).shuffled(seed, "crop_flip"))
        ways = {label: reconstructed(image, split.images[label]) for image, label in zip(images, labels, strict=True)}
        drawn.append([ways[label] for label in range(30)])
    assert sum(first == second for first, second in zip(*drawn, strict=True)) < 5


def test_augmentation_pads_with_black_also_after_normalisation() -> None:
    split = Split(np.full((50, 32, 32, 3), 200, np.uint8), np.zeros(50, np.int64))
    mean, std = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([1.0, 2.0, 4.0])
    images, _ = collected(Batches(split, (mean, std), 50, CPU).shuffled(1, "crop_flip"))
    black, grey = (-mean / std).tolist(), ((200 - mean) / std).tolist()
    for channel in range(3):
        assert set(np.unique(images[..., channel]).tolist()) == {black[channel], grey[channel]}


def test_serving_does_not_change_the_stored_images() -> None:
    split = numbered(20)
    before = split.images.copy()
    batches = Batches(split, RAW, 6, CPU)
    for images, _ in batches.shuffled(1, "crop_flip"):
        images.zero_()
    for images, _ in batches.in_order():
        images.zero_()
    assert np.array_equal(split.images, before)
    assert np.array_equal(collected(batches.in_order())[0], before)
