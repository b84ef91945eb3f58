"""lib/cifar10.py against torchvision's reader, against damage and malice, and against plain arithmetic."""

import hashlib
import itertools
import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from lib import cifar10
from lib.card import VALIDATION
from lib.cifar10 import Batches, Split
from lib.errors import BadInput

CPU = torch.device("cpu")
RAW = (torch.zeros(3), torch.ones(3))  # statistics that leave the bytes as they are
FILES = [*cifar10.TRAIN_FILES, cifar10.TEST_FILE, cifar10.NAMES_FILE]


def numbered(count: int, seed: int = 0) -> Split:
    """Noise images that are all different; each one's label is its number."""
    images = np.random.default_rng(seed).integers(1, 256, (count, 32, 32, 3), dtype=np.uint8)  # 0 is the padding's
    return Split(images, np.arange(count))


def collected(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[np.ndarray, list[int]]:
    """All images (N, 32, 32, 3), as floats, and all labels of a pass."""
    images, labels = zip(*batches, strict=True)
    return torch.cat(images).permute(0, 2, 3, 1).numpy(), torch.cat(labels).tolist()


def replace(folder: Path, file: str, content: bytes) -> None:
    """Put other content into a stand-in and make its manifest vouch for it."""
    (folder / cifar10.FOLDER / file).write_bytes(content)
    manifest = json.loads((folder / cifar10.MANIFEST).read_bytes())
    manifest["files"][file] = [len(content), hashlib.sha256(content).hexdigest()]
    (folder / cifar10.MANIFEST).write_text(json.dumps(manifest))


# Reading.


@pytest.mark.parametrize("world", ["stand_in", "official"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_the_reader_agrees_with_torchvision_image_by_image(
    world: str, train: bool, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(world)

    def listed(*files: str) -> list[list[str]]:
        return [[file, hashlib.md5((folder / cifar10.FOLDER / file).read_bytes()).hexdigest()] for file in files]

    meta = torchvision.datasets.CIFAR10.meta | {"md5": listed(cifar10.NAMES_FILE)[0][1]}
    lists = {"train_list": listed(*cifar10.TRAIN_FILES), "test_list": listed(cifar10.TEST_FILE), "meta": meta}
    theirs = type("Small", (torchvision.datasets.CIFAR10,), lists)(root=folder, train=train, download=False)
    data = cifar10.load(folder, "auto", 200, 40)
    ours = data.train if train else data.test
    assert len(ours.images) == len(theirs) == (200 if train else 40)
    for index, (image, label) in enumerate(theirs):
        assert np.array_equal(ours.images[index], np.asarray(image))
        assert ours.labels[index] == label


def test_the_folder_and_file_names_are_those_torchvision_expects() -> None:
    theirs = torchvision.datasets.CIFAR10
    names = [file for file, _ in theirs.train_list + theirs.test_list] + [theirs.meta["filename"]]
    assert (cifar10.FOLDER, FILES, set(cifar10.OFFICIAL_FILES)) == (theirs.base_folder, names, set(names))


def test_a_batch_as_python_2_wrote_it_is_read() -> None:
    """The official files are protocol-2 pickles of Python 2 with numpy's old module names; put together by hand."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    count = 3
    planes = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    shape = b"K\x01K" + bytes([count]) + b"M\x00\x0c\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
    dtype += b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    data = b"(" + shape + dtype + b"\x89T" + struct.pack("<i", planes.nbytes) + planes.tobytes() + b"tb"
    labels = b"](K\x06K\x09K\x00e"
    names = b"](" + text(b"leptodactylus_pentadactylus_s_000004.png") + b"e"
    entry = text(b"data") + array + data + text(b"labels") + labels + text(b"filenames") + names
    split = cifar10.read_batch(b"\x80\x02}(" + entry + b"u.", Path("data_batch_1"))
    assert np.array_equal(split.images, planes.transpose(0, 2, 3, 1))
    assert split.labels.tolist() == [6, 9, 0]


@pytest.mark.parametrize("world, name", [("stand_in", "synthetic"), ("official", "cifar10")])
def test_auto_takes_what_is_there_and_says_what_it_is(world: str, name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(world)
    assert cifar10.load(folder, "auto", 10, 10).name == name
    assert cifar10.load(folder, name, 10, 10).name == name


@pytest.mark.parametrize(
    "world, wanted", [("stand_in", "cifar10"), ("stand_in", VALIDATION), ("official", "synthetic")]
)
def test_a_data_set_that_is_not_the_wanted_one_is_refused(
    world: str, wanted: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(world)
    with pytest.raises(BadInput, match=f"for {wanted}.*dvc repro") as caught:
        cifar10.load(folder, wanted, 10, 10)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("train_images, test_images", [(1, 1), (40, 39), (41, 40), (199, 1), (200, 40)])
def test_the_first_images_are_taken(stand_in: Path, train_images: int, test_images: int) -> None:
    whole, part = cifar10.load(stand_in, "auto", 200, 40), cifar10.load(stand_in, "auto", train_images, test_images)
    for some, every, count in (
        (part.train, whole.train, train_images),
        (part.test, whole.test, test_images),
    ):
        assert np.array_equal(some.images, every.images[:count])
        assert np.array_equal(some.labels, every.labels[:count])


def test_for_validation_the_last_training_file_is_held_out(official: Path) -> None:
    whole, held_out = cifar10.load(official, "cifar10", 200, 40), cifar10.load(official, VALIDATION, 160, 40)
    assert (held_out.name, held_out.sha256) == (VALIDATION, whole.sha256)
    for ours, part in ((held_out.train, slice(0, 160)), (held_out.test, slice(160, 200))):
        assert np.array_equal(ours.images, whole.train.images[part])
        assert np.array_equal(ours.labels, whole.train.labels[part])
    with pytest.raises(BadInput, match=r"train_images: 161 .*has 160"):
        cifar10.load(official, VALIDATION, 161, 40)


@pytest.mark.parametrize(
    "key, train_images, test_images, there", [("train_images", 201, 40, 200), ("test_images", 200, 41, 40)]
)
def test_more_images_than_there_are_is_bad_input(
    stand_in: Path, key: str, train_images: int, test_images: int, there: int
) -> None:
    with pytest.raises(BadInput, match=rf"{key}: {there + 1} .*has {there}: .*params\.yaml"):
        cifar10.load(stand_in, "auto", train_images, test_images)


# Damage.


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def zero_block(path: Path) -> None:
    content = path.read_bytes()
    start, stop = len(content) // 3, len(content) // 2
    path.write_bytes(content[:start] + bytes(stop - start) + content[stop:])


def put_another_in_its_place(path: Path) -> None:
    other = "data_batch_2" if path.name != "data_batch_2" else "data_batch_3"
    path.write_bytes(path.with_name(other).read_bytes())


def make_it_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [flip_bit, truncate, lengthen, zero_block, Path.unlink, put_another_in_its_place, make_it_a_folder]


@pytest.mark.parametrize("world", ["stand_in", "official"])
@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_file_named(
    damage: Callable[[Path], None], file: str, world: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(world)
    cifar10.verified_files(folder)
    damage(folder / cifar10.FOLDER / file)
    with pytest.raises(BadInput, match="dvc repro") as caught:
        cifar10.load(folder, "auto", 1, 1)  # even where that file would not be read
    assert str(folder / cifar10.FOLDER / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first, second", [("data_batch_1", "data_batch_2"), ("data_batch_5", "test_batch")])
def test_two_files_in_each_others_place_are_found(stand_in: Path, first: str, second: str) -> None:
    one, other = stand_in / cifar10.FOLDER / first, stand_in / cifar10.FOLDER / second
    assert one.stat().st_size == other.stat().st_size  # the size alone would not tell
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    with pytest.raises(BadInput, match=f"{first}.* is damaged"):
        cifar10.load(stand_in, "auto", 1, 1)


FULL = {file: [1, "0" * 64] for file in FILES}
INFINITE = json.dumps({"dataset": "x", "files": FULL | {"test_batch": [float("inf"), ""]}})
infinite = pytest.param(
    INFINITE,
    id="infinite size",
)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "null",
        "[]",
        "\xff",
        "{}",
        '{"dataset": "x"}',
        '{"files": {}}',
        '{"dataset": "x", "files": {}}',
        '{"dataset": "x", "files": []}',
        '{"dataset": "x", "files": {"data_batch_1": 3}}',
        '{"dataset": "x", "files": {"data_batch_1": [1]}}',
        '{"dataset": "x", "files": {"data_batch_1": ["many", ""]}}',
        json.dumps({"dataset": "x", "files": FULL | {"../outside": [1, "0" * 64]}}),
        json.dumps({"dataset": "x", "files": {file: FULL[file] for file in FILES[1:]}}),
        infinite,
    ],
)
def test_a_damaged_manifest_is_named(stand_in: Path, manifest: str) -> None:
    (stand_in / cifar10.MANIFEST).write_bytes(manifest.encode("latin1"))
    with pytest.raises(BadInput) as caught:
        cifar10.load(stand_in, "auto", 1, 1)
    assert str(stand_in / cifar10.MANIFEST) in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", VALIDATION])
def test_a_manifest_cannot_claim_to_be_cifar10(stand_in: Path, name: str) -> None:
    path = stand_in / cifar10.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"dataset": name}))
    with pytest.raises(BadInput) as caught:
        cifar10.load(stand_in, "auto", 1, 1)
    assert str(path) in str(caught.value)


def test_a_stand_in_without_its_manifest_is_not_taken_for_cifar10(stand_in: Path) -> None:
    (stand_in / cifar10.MANIFEST).unlink()
    with pytest.raises(BadInput, match="data_batch_1 has .* bytes, not 31,035,704"):
        cifar10.load(stand_in, "auto", 1, 1)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"data": np.zeros((2, 3072), np.uint8)},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [-1, 1]},
        {"data": np.zeros((2, 3071), np.uint8), "labels": [1, 1]},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
        {"data": np.zeros((2, 3072), np.uint8), "labels": ["cat", "dog"]},
        [],
        7,
    ],
    ids=repr,
)
def test_a_verified_file_that_is_no_batch_is_named(stand_in: Path, entry: Any) -> None:
    replace(stand_in, "data_batch_1", pickle.dumps(entry, protocol=4))
    with pytest.raises(BadInput, match="is not a batch of CIFAR-10") as caught:
        cifar10.load(stand_in, "auto", 1, 1)
    assert str(stand_in / cifar10.FOLDER / "data_batch_1") in str(caught.value)


# Malice.


class Running:
    """Unpickles to a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def through_numpy(code: str) -> bytes:
    """A call of a function that lives in numpy itself and runs text as code."""
    return b"cnumpy.testing._private.utils\nrunstring\n(V" + code.encode() + b"\n}tR."


@pytest.mark.parametrize("hidden", [False, True], ids=["bare", "beside good data"])
@pytest.mark.parametrize("way", ["os.system", "builtins.eval", "builtins.exec", "numpy"])
def test_a_verified_pickle_that_would_run_code_is_refused_without_running(
    stand_in: Path, tmp_path: Path, way: str, hidden: bool
) -> None:
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w').close()"
    calls = {
        "os.system": Running(os.system, f"touch '{marker}'"),
        "builtins.eval": Running(eval, code),
        "builtins.exec": Running(exec, code),
    }
    if way == "numpy":
        attack = through_numpy(code)
        if hidden:
            good = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1]}, protocol=0)
            attack = attack[:-1] + b"0" + good  # run, drop the result, go on with good data
    else:
        good = {"data": np.zeros((1, 3072), np.uint8), "labels": [1]}
        attack = pickle.dumps(good | {"filenames": calls[way]} if hidden else calls[way], protocol=4)

    pickle.loads(attack)  # the attack works on a reader that does not defend itself
    marker.unlink()

    replace(stand_in, "data_batch_1", attack)
    with pytest.raises(BadInput, match="it would run") as caught:
        cifar10.load(stand_in, "auto", 1, 1)
    assert str(stand_in / cifar10.FOLDER / "data_batch_1") in str(caught.value)
    assert not marker.exists()


# Normalisation.


def test_channel_statistics_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1234, 32, 32, 3), dtype=np.uint8)  # counted in two parts
    mean, std = cifar10.channel_statistics(images)
    assert mean.shape == std.shape == (3,)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_channel_statistics_keep_the_colours_apart() -> None:
    images = np.zeros((4, 32, 32, 3), np.uint8)
    images[..., 1] = 100
    images[:2, ..., 2] = 255
    mean, std = cifar10.channel_statistics(images)
    assert mean.tolist() == [0, 100, 127.5]
    assert std.tolist() == [0, 0, 127.5]


@pytest.mark.parametrize("way", ["in_order", "shuffled"])
def test_the_training_sets_batches_have_mean_zero_and_deviation_one(stand_in: Path, way: str) -> None:
    train = cifar10.load(stand_in, "auto", 200, 40).train
    batches = Batches(train, cifar10.channel_statistics(train.images), 32, CPU)
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
