"""Small data folders for every test that needs data; nothing here touches the network or a real data set."""

import contextlib
import gc
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lib import cifar10, synthetic
from tests.switches import turned_back

IMAGES_PER_FILE = 40

# PyTorch reads it once, at a GPU's first matrix product, in whichever test: to be deterministic later is too late.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

with contextlib.suppress(ImportError):  # on a rented GPU there is no Hypothesis
    from hypothesis import settings

    settings.register_profile("the same cases on any machine", deadline=None, derandomize=True)
    settings.load_profile("the same cases on any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: begun last, they would keep one process busy while the others have nothing left."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)  # there may be no xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: the longest tests run whole programs, and wait for a third of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from a second thread, and lose much where another process has its core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def imported_for_good() -> None:
    """Statsmodels collects garbage at every Holm correction, and went through all of torch, DVC and Ray each time."""
    gc.freeze()


@pytest.fixture
def process_as_it_was() -> Iterator[None]:
    with turned_back():
        yield


@pytest.fixture(scope="session")
def pristine_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; tests get copies."""
    folder = tmp_path_factory.mktemp("pristine")
    cifar10.write_stand_in(folder, synthetic.NAME, synthetic.generate(7, IMAGES_PER_FILE), synthetic.CLASSES)
    return folder


@pytest.fixture
def stand_in(pristine_stand_in: Path, tmp_path: Path) -> Path:
    """A data folder of 5 x 40 training and 40 test images, with the manifest of a stand-in."""
    return Path(shutil.copytree(pristine_stand_in, tmp_path / "stand-in"))


@pytest.fixture
def official(pristine_stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same small files without a manifest, in a world where they are the official ones."""
    folder = Path(shutil.copytree(pristine_stand_in, tmp_path / "official"))
    (folder / cifar10.MANIFEST).unlink()
    contents = {file: (folder / cifar10.FOLDER / file).read_bytes() for file in cifar10.OFFICIAL_FILES}
    known = {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in contents.items()}
    monkeypatch.setattr(cifar10, "OFFICIAL_FILES", known)
    return folder


@pytest.fixture
def workplace(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the data where the stage looks for them."""
    workplace = tmp_path / "workplace"
    (workplace / "data").mkdir(parents=True)
    os.rename(stand_in, workplace / "data" / "cifar10")
    monkeypatch.chdir(workplace)
    return workplace
