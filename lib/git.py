"""What git answers of the working directory's repository."""

import subprocess


def answer(*arguments: str) -> bytes | None:
    """Its output, or None if it fails or is not there; takes no optional locks: others may use this repository."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    return ended.stdout if ended.returncode == 0 else None


def text(*arguments: str) -> str | None:
    """The same, as text."""
    output = answer(*arguments)
    return None if output is None else output.decode(errors="replace")
