"""CIFAR-10 from a source, verified: a folder, an archive, an https address, or the synthetic stand-in."""

import contextlib
import os
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pooch
import requests

from lib import cifar10, synthetic
from lib.card import VALIDATION
from lib.errors import BadInput
from lib.files import failures_named, write_whole

OFFICIAL_ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
SECONDS_TO_ANSWER = 5
SECONDS_TO_OBTAIN = 86_400  # at the very most
MOST_BYTES = 40_000_000  # no file of CIFAR-10 is larger; of an archive's files no more is read
SCRATCH = ".cifar10-"  # prefix of unfinished folders' names
SYNTHETIC_SEED = 0
# The data sets generated here, by name: the six files' images and labels, and the classes.
STAND_INS: dict[str, Callable[[], tuple[dict[str, cifar10.Split], list[str]]]] = {
    synthetic.NAME: lambda: (synthetic.generate(SYNTHETIC_SEED), synthetic.CLASSES),
}
DATA_SETS = ("cifar10", VALIDATION, "auto", *STAND_INS)  # what may be wanted
_CURE = "set CIFAR10_SOURCE to a folder with the batches, to cifar-10-python.tar.gz or to an https address of it"


def obtain(wanted: str, folder: Path, source: str | None, archive: Path) -> str:
    """Make `folder` hold the verified files of the wanted data set, and return the name of what it holds.

    wanted: "cifar10", strictly; VALIDATION, whose files are the same; a stand-in by its name; or "auto": CIFAR-10 if
    available, else the synthetic set.
    source: where CIFAR-10 is (see CIFAR10_SOURCE in the README), or None for the official address.
    archive: where a downloaded archive is kept.
    A folder that already holds CIFAR-10, intact, stays as it is; a stand-in is generated again, since its code may have
    changed. Whatever goes wrong, the old folder stays.
    Raises BadInput that names the source, what is wrong and the fix.
    """
    name = _found(wanted, folder) or _made(wanted, folder, source, archive)
    for place in {folder.parent, archive.parent}:  # not before: a leftover may be the only copy of the data
        _sweep(place)
    return name


def _found(wanted: str, folder: Path) -> str | None:
    """The name "cifar10" if that will do and the folder holds it, intact."""
    with contextlib.suppress(BadInput):
        if wanted not in STAND_INS and cifar10.verified_files(folder).dataset == "cifar10":
            return "cifar10"
    return None


def _made(wanted: str, folder: Path, source: str | None, archive: Path) -> str:
    """Fill the folder; the name of what it holds now."""
    with failures_named(folder), _new_folder(folder) as new:
        if wanted not in STAND_INS and _fetch(wanted, new, source, archive):
            return "cifar10"
        name = wanted if wanted in STAND_INS else synthetic.NAME
        cifar10.write_stand_in(new, name, *STAND_INS[name]())
        return name


def _fetch(wanted: str, folder: Path, source: str | None, archive: Path) -> bool:
    """Fetch CIFAR-10; False if `wanted` is "auto", no source is named and the official address is out of reach."""
    if (
        (source is None or source.startswith("https://"))
        and archive.is_file()
        and pooch.file_hash(archive) == ARCHIVE_SHA256
    ):
        _unpack(archive, folder)
    elif source is None:
        try:
            address = _answering_address(OFFICIAL_ADDRESS)
        except BadInput as error:
            if wanted != "auto":
                raise BadInput(f"CIFAR-10 is not available: {error}; {_CURE}") from None
            return False
        _unpack(_downloaded(address, archive), folder)
    elif "://" in source:
        _unpack(_downloaded(_answering_address(source), archive), folder)
    elif Path(source).is_dir():
        _copy(Path(source), folder)
    else:
        _unpack(Path(source), folder)
    return True


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that replaces `folder` at the end of the body, and is deleted if the body fails."""
    with _scratch(folder.parent) as name:
        scratch = Path(name)
        (scratch / "new").mkdir()
        yield scratch / "new"
        if folder.exists():
            os.rename(folder, scratch / "old")
        try:
            os.rename(scratch / "new", folder)
        except OSError:
            if (scratch / "old").exists():
                os.rename(scratch / "old", folder)
            raise


def _scratch(place: Path) -> tempfile.TemporaryDirectory[str]:
    """A context with an empty folder in `place`, deleted at its end. Raises OSError."""
    place.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=SCRATCH, dir=place, ignore_cleanup_errors=True)


def _sweep(place: Path) -> None:
    """Delete the scratch folders that killed processes have left in a place."""
    for leftover in place.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > SECONDS_TO_OBTAIN:
                shutil.rmtree(leftover)


def _answering_address(address: str) -> str:
    """Where an https address redirects to, if a server answers in time. Raises BadInput."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            response = requests.get(address, stream=True, timeout=SECONDS_TO_ANSWER)
            response.close()
            response.raise_for_status()
            answer.append(response)
        except Exception as error:  # requests lets some errors of underlying libraries through
            answer.append(error)

    if not address.startswith("https://"):
        raise BadInput(f"{address} is not an https address: {_CURE}")
    thread = threading.Thread(target=ask, daemon=True)  # name resolution has no time-out
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    if not answer:
        raise BadInput(f"{address} does not answer within {SECONDS_TO_ANSWER} s")
    if isinstance(answer[0], Exception):
        raise BadInput(f"{address} is out of reach ({type(answer[0]).__name__})")
    for response in (*answer[0].history, answer[0]):
        if not response.url.startswith("https://"):
            raise BadInput(f"{address} leads to {response.url}, which is not https: {_CURE}")
    return answer[0].url


def _downloaded(address: str, archive: Path) -> Path:
    """Download the archive and check its SHA-256. Raises BadInput."""
    get = pooch.HTTPDownloader(progressbar=True, timeout=60, allow_redirects=False)
    try:
        with _scratch(archive.parent) as scratch:
            pooch.retrieve(address, f"sha256:{ARCHIVE_SHA256}", archive.name, scratch, downloader=get)
            os.replace(Path(scratch, archive.name), archive)
    except (requests.RequestException, ValueError, OSError) as error:  # pooch: ValueError for a wrong hash
        reason = " ".join(str(error).split())
        raise BadInput(f"{address} could not be downloaded whole ({reason}): try again, or {_CURE}") from None
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the expected members of an archive, by name; anything else is ignored. Raises BadInput."""
    try:
        with tarfile.open(archive) as tar:
            for file in cifar10.OFFICIAL_FILES:
                content = tar.extractfile(f"{cifar10.FOLDER}/{file}")
                _keep(folder, file, content.read(MOST_BYTES) if content else b"", archive)
    except BadInput:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        raise BadInput(f"{archive} cannot be read ({error}): {_CURE}") from None


def _copy(source: Path, folder: Path) -> None:
    """Copy the batches from a folder, or from FOLDER in it. Raises BadInput that names the file."""
    inner = source / cifar10.FOLDER
    for file in cifar10.OFFICIAL_FILES:
        path = (inner if inner.is_dir() else source) / file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}): {_CURE}") from None
        _keep(folder, file, content, source)


def _keep(folder: Path, file: str, content: bytes, source: Path) -> None:
    """Write one of CIFAR-10's files. Raises BadInput that names it and its source unless it is the official one."""
    if fault := cifar10.fault_of(content, *cifar10.OFFICIAL_FILES[file]):
        raise BadInput(f"{source}: {file} {fault}: {_CURE}")
    write_whole(folder / cifar10.FOLDER / file, content)
