"""Keeps the memory of large tensors in the process. glibc gives it back to the system after each use and gets it again page by page,
which costs an eager model on the CPU up to half of its time."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Mapping

MEBIBYTE = 1 << 20
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
PRESET = {M_TRIM_THRESHOLD: 2047 * MEBIBYTE, M_TOP_PAD: 64 * MEBIBYTE, M_MMAP_THRESHOLD: 1024 * MEBIBYTE}
HIGHEST_OF_OLD = 32 * MEBIBYTE
"""Older versions of glibc take no higher M_MMAP_THRESHOLD."""


def keep_memory(environment: Mapping[str, str] = os.environ, mallopt: Callable[[int, int], int] | None = None) -> bool:
    """Whether the preset is in force. It is not where malloc is another than glibc's, or was configured by the environment (MALLOC_...,
    GLIBC_TUNABLES, LD_PRELOAD)."""
    if any(name in ("GLIBC_TUNABLES", "LD_PRELOAD") or (name.startswith("MALLOC_") and name.endswith("_")) for name in environment):
        return False
    if mallopt is None:
        if platform.libc_ver()[0] != "glibc":
            return False
        mallopt = ctypes.CDLL(None).mallopt
    took = [mallopt(option, value) for option, value in PRESET.items()]
    return all(took[:2]) and bool(took[2] or mallopt(M_MMAP_THRESHOLD, HIGHEST_OF_OLD))
