"""Files that are there whole or not at all, and JSON with one spelling per value."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from lib.errors import BadInput


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: a reader, or a crash, sees the old file or the new one.

    Raises OSError (the old file stays, no temporary file is left).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same folder: same file system
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def canonical_json(value: Any) -> bytes:
    """The one spelling of `value`: sorted keys, two spaces, never NaN (which is not JSON), a final newline.

    Raises ValueError for NaN and infinities.
    """
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises BadInput that names the file if it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{path} is not there: `dvc repro` makes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON ({error}): delete it and run `dvc repro` again") from None
