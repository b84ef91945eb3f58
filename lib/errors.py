"""Bad input: one clear line, exit status 2, nothing half-written."""

import contextlib
import sys
from collections.abc import Iterator


class BadInput(Exception):
    """Something the user can mend. The message names the key or file, what is wrong, and the cure."""


@contextlib.contextmanager
def bad_input_exits(stage: str) -> Iterator[None]:
    """End the process with status 2 and one line on standard error where the body raises BadInput."""
    try:
        yield
    except BadInput as error:
        print(f"{stage}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
