"""A node of the fleet, from within: its folder, what is installed, the data, and what a training finds around it."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lib.errors import BadInput
from lib.files import write_whole
from lib.stopping import ENDS_WITH_PARENT

CODE = Path(__file__).parents[1]  # on a node, that is where Ray has put it


def versions() -> dict[str, str]:
    """Of what must be the same on every node; a torch for another device (2.14.1+cpu) is the same torch."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in ("ray", "torch"):
        try:
            found[package] = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def environment() -> dict[str, str]:
    """That of a training: one thread, our code, and an end when this process ends."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return kept | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1", ENDS_WITH_PARENT: "1"}


def home() -> Path:
    """This user's folder on this node, for all fleets: in TMPDIR, or where temporary files go."""
    folder = Path(tempfile.gettempdir(), f"ic-fleet-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise BadInput(f"{folder} on {socket.gethostname()} is another user's: set TMPDIR there to a folder of yours")
    return folder


def fresh_folder(root: Path) -> Path:
    """A folder for this process alone; those that killed processes have left are swept."""
    root.mkdir(exist_ok=True)
    for folder in root.iterdir():
        if folder.name.isdecimal() and not _lives(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    (folder := root / str(os.getpid())).mkdir()
    return folder


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def data_here(root: Path, wanted: Mapping[str, str], fetch: Callable[[], Mapping[str, bytes]]) -> Path:
    """The folder on this node that holds these files (path to SHA-256): fetched by the first task that needs them.

    Every file is verified each time; one that is damaged is fetched anew.
    """
    folder = root / hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".lock"):
        missing = [name for name, sha256 in wanted.items() if _sha256(folder / name) != sha256]
        contents = fetch() if missing else {}
        for name in missing:
            if hashlib.sha256(contents[name]).hexdigest() != wanted[name]:
                raise BadInput(f"{name} was damaged on its way to {socket.gethostname()}: try again")
            write_whole(folder / name, contents[name])
    return folder


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for other tasks of this node that do the same."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
