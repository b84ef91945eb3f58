"""lib/cifar10.py against torchvision's reader, against damage and against malice."""

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from lib import cifar10
from lib.card import VALIDATION
from lib.errors import BadInput

FILES = [*cifar10.TRAIN_FILES, cifar10.TEST_FILE, cifar10.NAMES_FILE]


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
