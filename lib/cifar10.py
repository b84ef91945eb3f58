"""CIFAR-10 from disk: verify the files, unpickle them without running code."""

import dataclasses
import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.card import VALIDATION
from lib.errors import BadInput
from lib.files import canonical_json, failures_named, read_json, write_whole

FOLDER = "cifar-10-batches-py"  # inside the data folder, as in the official archive and as torchvision expects it
TRAIN_FILES = tuple(f"data_batch_{index}" for index in range(1, 6))
TEST_FILE = "test_batch"
NAMES_FILE = "batches.meta"
MANIFEST = "dataset.json"  # beside FOLDER where the files are not the official ones: what they should be

# Bytes and SHA-256 of the official files (their MD5s match torchvision's).
OFFICIAL_FILES: dict[str, tuple[int, str]] = {
    "data_batch_1": (31035704, "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
    "data_batch_2": (31035320, "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8"),
    "data_batch_3": (31035999, "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9"),
    "data_batch_4": (31035696, "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b"),
    "data_batch_5": (31035623, "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154"),
    "test_batch": (31035526, "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
    "batches.meta": (158, "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb"),
}


@dataclasses.dataclass(frozen=True)
class Split:
    """Images (N, 32, 32, 3) as bytes, and labels (N,) from 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class DataSet:
    """A verified data set's images in use, in memory."""

    name: str  # "cifar10", VALIDATION, or what the manifest says
    sha256: str  # of its files, all of them
    train: Split
    test: Split


class Files(NamedTuple):
    """A data set's files, verified."""

    dataset: str  # its name
    contents: dict[str, bytes]
    sha256: str  # of the files' names and SHA-256s: data sets with the same one are identical


def verified_files(folder: Path) -> Files:
    """The data set's files, each checked by size and SHA-256.

    The bytes hashed are the bytes returned: nothing can change in between.
    Raises BadInput that names the file and the fix.
    """
    name, expected = described(folder)
    contents = {file: verified_file(folder / FOLDER / file, *expected[file]) for file in expected}
    digests = {file: digest for file, (_, digest) in expected.items()}  # those of the contents, as just verified
    return Files(name, contents, hashlib.sha256(canonical_json(digests)).hexdigest())


def described(folder: Path) -> tuple[str, Mapping[str, tuple[int, str]]]:
    """The data set's name, and the expected size and SHA-256 of each of its files. Raises BadInput."""
    with failures_named(folder):  # no permission to enter it
        if not (folder / MANIFEST).exists():
            return "cifar10", OFFICIAL_FILES
    manifest = read_json(folder / MANIFEST, _CURE)
    try:
        name = str(manifest["dataset"])
        expected = {file: (int(size), str(digest)) for file, (size, digest) in manifest["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise BadInput(f"{folder / MANIFEST} is damaged: {_CURE}") from None
    if name in ("cifar10", VALIDATION) or set(expected) != set(OFFICIAL_FILES):
        raise BadInput(f"{folder / MANIFEST} does not describe a stand-in data set: {_CURE}")
    return name, expected


# DVC trusts write-protected files in its cache, and would restore a damaged copy from there.
_CURE = "fetch it again with `chmod -R u+w .dvc/cache; dvc repro -f -s download`"


def verified_file(path: Path, size: int, sha256: str) -> bytes:
    """A file's content. Raises BadInput that names it unless it has this size and SHA-256."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} is not there: `dvc repro download` gets it") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}): {_CURE}") from None
    if fault := fault_of(content, size, sha256):
        raise BadInput(f"{path} {fault}: {_CURE}")
    return content


def fault_of(content: bytes, size: int, sha256: str) -> str | None:
    """What is wrong with a file's content, or None."""
    if len(content) != size:
        return f"has {len(content):,} bytes, not {size:,}"
    found = hashlib.sha256(content).hexdigest()
    return None if found == sha256 else f"is damaged (SHA-256 {found[:12]}..., not {sha256[:12]}...)"


class ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, numbers, strings and numpy arrays; refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        rebuild_array = np.empty(0).__reduce__()[0]  # numpy.core.multiarray or numpy._core.multiarray, by version
        allowed = {"_reconstruct": rebuild_array, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return allowed[name]


def read_batch(content: bytes, path: Path) -> Split:
    """One batch file's images and labels. Raises BadInput that names the file."""
    try:
        entry = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        planes = np.asarray(entry["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)  # stored as colour planes
        split = Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.asarray(entry["labels"], dtype=np.int64))
        if len(split.images) != len(split.labels) or split.labels.min() < 0 or split.labels.max() > 9:
            raise ValueError("images and labels do not fit each other")
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise BadInput(f"{path} is not a batch of CIFAR-10 ({error}): {_CURE}") from None
    return split


def load(folder: Path, wanted: str, train_images: int, test_images: int) -> DataSet:
    """The first `train_images` and `test_images` images of a data folder, verified.

    For VALIDATION, the test images are those of the last training file, and the test file's are not used.
    Raises BadInput if a file is damaged, if the folder holds another data set than wanted, or too few images.
    """
    name, files, sha256 = verified_files(folder)
    train_files, test_file = TRAIN_FILES, TEST_FILE
    if (name, wanted) == ("cifar10", VALIDATION):
        name, train_files, test_file = VALIDATION, TRAIN_FILES[:-1], TRAIN_FILES[-1]
    if wanted not in ("auto", name):
        raise BadInput(f"{folder} holds the {name} data set, the run is for {wanted}: {_CURE}")

    def first(count: int, key: str, *names: str) -> Split:
        """The first `count` images of these files, reading only as many files as needed."""
        batches: list[Split] = []
        for file in names:
            if sum(len(batch.labels) for batch in batches) < count:
                batches.append(read_batch(files[file], folder / FOLDER / file))
        labels = np.concatenate([batch.labels for batch in batches])
        if count > len(labels):
            raise BadInput(f"{key}: {count:,} asked for, the data set has {len(labels):,}: lower it in params.yaml")
        return Split(np.concatenate([batch.images for batch in batches])[:count], labels[:count])

    train = first(train_images, "train_images", *train_files)
    return DataSet(name, sha256, train, first(test_images, "test_images", test_file))


def write_stand_in(folder: Path, name: str, batches: dict[str, Split], label_names: list[str]) -> None:
    """Write a stand-in data set in CIFAR-10's format: the same files, and a manifest that names it."""
    contents = {
        NAMES_FILE: _pickled({"label_names": label_names, "num_cases_per_batch": 10000, "num_vis": 3072}),
        **{
            file: _pickled({"data": _planes(batch.images), "labels": batch.labels.tolist()})
            for file, batch in batches.items()
        },
    }
    for file, content in contents.items():
        write_whole(folder / FOLDER / file, content)
    files = {file: [len(content), hashlib.sha256(content).hexdigest()] for file, content in contents.items()}
    write_whole(folder / MANIFEST, canonical_json({"dataset": name, "files": files}))


def _planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def _pickled(entry: dict[str, Any]) -> bytes:
    return pickle.dumps(entry, protocol=4)  # fixed, so that the bytes do not depend on the Python version
