"""lib/synthetic.py: CIFAR-10's contract, the same bytes from the same seed, and not solvable by looking at pixels."""

import numpy as np
import pytest

from lib import cifar10, synthetic
from lib.cifar10 import Split


@pytest.fixture(scope="module")
def batches() -> dict[str, Split]:
    return synthetic.generate(0, 1000)


def contents(folder: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files of the stand-in of a seed, by name."""
    path = tmp_path_factory.mktemp(folder)
    cifar10.write_stand_in(path, synthetic.NAME, synthetic.generate(seed, 20), synthetic.CLASSES)
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first, again, other = (contents(*each, tmp_path_factory) for each in (("first", 0), ("again", 0), ("other", 1)))
    assert len(first) == len(cifar10.OFFICIAL_FILES) + 1
    assert first == again
    differing = {name.rpartition("/")[2] for name in first if first[name] != other[name]}
    assert differing == {*cifar10.TRAIN_FILES, cifar10.TEST_FILE, cifar10.MANIFEST}


def test_a_known_seed_gives_the_known_images_on_every_machine() -> None:
    batch = synthetic.generate(0, 3)["data_batch_1"]
    assert batch.labels.tolist() == [2, 7, 3]
    assert batch.images.astype(int).sum(axis=(1, 2, 3)).tolist() == [390204, 390163, 393072]


def test_the_files_are_cifar10s(batches: dict[str, Split]) -> None:
    assert set(batches) == {*cifar10.TRAIN_FILES, cifar10.TEST_FILE}


@pytest.mark.parametrize("file", [*cifar10.TRAIN_FILES, cifar10.TEST_FILE])
def test_every_file_has_images_of_cifar10s_shape_and_all_ten_classes(batches: dict[str, Split], file: str) -> None:
    batch = batches[file]
    assert (batch.images.shape, batch.images.dtype) == ((1000, 32, 32, 3), np.uint8)
    assert batch.labels.shape == (1000,)
    counts = np.bincount(batch.labels, minlength=10)
    assert len(counts) == len(synthetic.CLASSES) == 10
    assert counts.min() > 50  # expected 100 +- 10 of each


def test_it_has_as_many_images_as_cifar10() -> None:
    assert synthetic.IMAGES_PER_FILE * len(cifar10.TRAIN_FILES) == 50_000
    assert synthetic.generate.__defaults__ == (synthetic.IMAGES_PER_FILE,)


def test_no_image_occurs_twice(batches: dict[str, Split]) -> None:
    images = {image.tobytes() for batch in batches.values() for image in batch.images}
    assert len(images) == 6 * 1000


def test_images_use_the_range_of_bytes_without_drowning_in_its_ends(batches: dict[str, Split]) -> None:
    images = batches["data_batch_1"].images
    assert (images.min(), images.max()) == (0, 255)
    assert ((images == 0) | (images == 255)).mean() < 0.05


def test_load_accepts_what_is_written_and_gives_it_back(
    batches: dict[str, Split], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("data")
    cifar10.write_stand_in(folder, synthetic.NAME, batches, synthetic.CLASSES)
    data = cifar10.load(folder, "synthetic", 5000, 1000)
    assert data.name == "synthetic"
    train = [batches[file] for file in cifar10.TRAIN_FILES]
    assert np.array_equal(data.train.images, np.concatenate([batch.images for batch in train]))
    assert np.array_equal(data.train.labels, np.concatenate([batch.labels for batch in train]))
    assert np.array_equal(data.test.images, batches[cifar10.TEST_FILE].images)
    assert np.array_equal(data.test.labels, batches[cifar10.TEST_FILE].labels)


def test_single_pixels_tell_little_about_the_class(batches: dict[str, Split]) -> None:
    """Nearest class mean on raw pixels: 10 % is chance."""
    train = [batches[file] for file in cifar10.TRAIN_FILES]
    images = np.concatenate([batch.images for batch in train]).reshape(5000, -1).astype(np.float32)
    labels = np.concatenate([batch.labels for batch in train])
    means = np.stack([images[labels == label].mean(axis=0) for label in range(10)])
    test = batches[cifar10.TEST_FILE]
    pixels = test.images.reshape(1000, -1).astype(np.float32)
    nearest = ((means**2).sum(axis=1) - 2 * pixels @ means.T).argmin(axis=1)
    assert (nearest == test.labels).mean() < 0.35
