"""What the contenders train on: CIFAR-10 if present, else the built-in set in its format. Needs no network."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lib import cifar10, synthetic

TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000  # per epoch, per evaluation
OBTAINED = Path("data/cifar10")


@dataclasses.dataclass(frozen=True)
class Source:
    """A data folder and how many of its images to use."""

    folder: Path
    train_images: int = TRAIN_IMAGES
    test_images: int = TEST_IMAGES

    @property
    def dataset(self) -> str:
        return cifar10.described(self.folder)[0]


@contextlib.contextmanager
def source(quick: bool) -> Iterator[Source]:
    """The pipeline's own data folder, or a temporary one; with `quick`, a small temporary one."""
    if OBTAINED.exists() and not quick:
        yield Source(OBTAINED)
        return
    if not quick:
        print(f"benchmarks: {OBTAINED} is not there: on the {synthetic.NAME} set; `dvc repro download` gets CIFAR-10")
    per_file = 200 if quick else synthetic.IMAGES_PER_FILE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cifar10.write_stand_in(folder, synthetic.NAME, synthetic.generate(0, per_file), synthetic.CLASSES)
        yield Source(folder, len(cifar10.TRAIN_FILES) * per_file, per_file)
