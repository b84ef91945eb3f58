"""The memory of a process that trains."""

import ctypes
import sys

# Of mallopt in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**30  # bytes; tensors above it are rare, and go back to the system at once


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to its end.

    A training step frees what the next one takes again. By default glibc hands a part of it back to the system in
    between, and every page of that is made anew and zeroed at its next use. Elsewhere than on glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or one without effect
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, LARGEST)
