"""Files that exist whole or not at all, and JSON with one encoding per value."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.errors import BadInput


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically: a reader, or a crash, sees the old file or the new one.

    On return the new file and its name are on disk: it survives a power cut.
    Raises BadInput (disk full, no permission): the old file stays, no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same folder: same file system
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_through(temporary, content)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise BadInput(
                f"{path}: {len(content):,} bytes could not be written ({error.strerror}); what was there is intact: "
                "free some space or fix the permissions, then run the same command again"
            ) from None
        raise


def _write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk: only then is a rename durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Turn an OSError in the body into BadInput that names its file, or `path` if it names none."""
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"{error.filename or path}: {error.strerror or error}: free some space, fix the permissions, or move away "
            "what is there, then run the same command again"
        ) from None


def require_writable(*paths: Path) -> None:
    """Raise BadInput unless each file can be written or replaced: better now than after hours of work.

    Deletes what a killed process left half-written of them: only for the one process that writes them.
    """
    for path in paths:
        if path.is_dir():
            raise BadInput(f"{path} must be a file and is a folder: move it away")
        with failures_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f"{path.name}.probe")
        write_whole(probe, b"")
        os.unlink(probe)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                os.unlink(leftover)


def require_room(folder: Path, needed: int) -> None:
    """Raise BadInput unless the disk that holds `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BadInput(f"{folder} needs {needed / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB left: make room")


def canonical_json(value: Any) -> bytes:
    """The only encoding of `value`: sorted keys, indented by two, with a final newline.

    Raises ValueError for NaN and infinities, which are not JSON.
    """
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path, cure: str = "`dvc repro` makes it") -> Any:
    """The value in a JSON file. Raises BadInput that names the file and the fix if it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{path} is not there: {cure}") from None
    except OSError as error:  # it may be intact
        raise BadInput(f"{path} cannot be read ({error.strerror}): fix that, then run the command again") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON ({error}): delete it; {cure}") from None
