"""The memory of a training process."""

import ctypes
import sys

# mallopt's, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = (2**30, 2**25)  # bytes of a block to keep; some versions of glibc accept no more than the second


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, except for the largest blocks.

    A training step frees what the next one allocates again. By default glibc returns part of it to the system in
    between, and each of those pages is faulted in and zeroed at its next use. Without glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    # Trimming last: alone it would freeze the other threshold at its default, far too low.
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
