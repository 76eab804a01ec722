"""Memory of large tensors stays in the process, unless somebody decided otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from streamfuse.allocator import HIGHEST_OF_OLD, M_MMAP_THRESHOLD, PRESET, keep_memory

AGAIN = """
import resource, sys
from streamfuse.allocator import keep_memory
assert len(sys.argv) == 1 or keep_memory()
for _ in range(9):
    b"x" * (48 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(9):
    b"x" * (48 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


class Malloc:
    """Notes what it is told, and refuses thresholds above its highest."""

    def __init__(self, highest: int = 1 << 40) -> None:
        self.told: list[tuple[int, int]] = []
        self.highest = highest

    def __call__(self, option: int, value: int) -> int:
        self.told.append((option, value))
        return int(option != M_MMAP_THRESHOLD or value <= self.highest)


def test_malloc_is_told_the_preset() -> None:
    malloc = Malloc()
    assert keep_memory({}, malloc)
    assert dict(malloc.told) == PRESET


def test_an_older_glibc_gets_its_highest_threshold() -> None:
    malloc = Malloc(HIGHEST_OF_OLD)
    assert keep_memory({}, malloc)
    assert malloc.told[-1] == (M_MMAP_THRESHOLD, HIGHEST_OF_OLD)


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_what_the_environment_says_stands(name: str) -> None:
    malloc = Malloc()
    assert not keep_memory({name: "1"}, malloc)
    assert malloc.told == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_was_used_before_is_used_again_without_page_faults() -> None:
    def faults(*arguments: str) -> int:
        ran = subprocess.run([sys.executable, "-c", AGAIN, *arguments], capture_output=True, text=True, check=True, env={"PYTHONPATH": "."})
        return int(ran.stdout)

    given_back, kept = faults(), faults("keep")
    assert kept < given_back / 10
