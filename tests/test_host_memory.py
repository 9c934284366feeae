"""Memory that is freed and taken again costs no page faults once the allocator keeps it."""

import subprocess
import sys

PROGRAM = """
import ctypes, resource, sys, threading
from asccl_jax import host_memory

kept = host_memory.keep_freed_memory() if sys.argv[1] == "keep" else True
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def step():
    block = libc.malloc(100_000_000)
    ctypes.memset(block, 1, 100_000_000)
    libc.free(block)

def faulted_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()

for _ in range(3):
    before = faulted_bytes()
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
print(faulted_bytes() - before if kept else -1)
"""


def faulted_bytes_of_the_third_step(mode: str) -> int:
    result = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def test_a_repeated_large_allocation_faults_no_pages_once_memory_is_kept():
    kept = faulted_bytes_of_the_third_step("keep")
    # Every page otherwise, but for pages larger than the system's usual ones; -1 where there is no glibc.
    assert kept < 2e6
    assert kept == -1 or kept < faulted_bytes_of_the_third_step("return") / 10
