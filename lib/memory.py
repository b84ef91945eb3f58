"""The memory of a process that trains."""

import ctypes
import sys

# Of mallopt in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = (2**30, 2**25)  # bytes of a block to be kept; some versions of glibc take no more than the second


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, but for the largest blocks.

    A training step frees what the next one takes again. By default glibc hands a part of it back to the system in
    between, and every page of that is made anew and zeroed at its next use. Elsewhere than on glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    # Trimming last: alone it would fix the other threshold where it is, far too low.
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
