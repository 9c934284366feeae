"""Memory that is freed and taken again costs no page faults once the allocator keeps it."""

import os
import subprocess
import sys

import pytest

from asccl_jax import process

PROGRAM = """
import ctypes, resource, sys, threading
from asccl_jax import process

kept = process.keep_freed_memory() if sys.argv[1] == "keep" else True
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


@pytest.fixture
def no_jaxlib(monkeypatch):
    monkeypatch.delitem(sys.modules, "jaxlib", raising=False)


def test_the_flag_is_appended_to_what_is_there(monkeypatch, no_jaxlib):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert process.apply_xla_flags()
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_force_host_platform_device_count=8",
        process.CPU_CONVOLUTION_FLAG,
    ]


def test_the_users_choice_stands(monkeypatch, no_jaxlib):
    chosen = "--xla_cpu_experimental_ynn_fusion_type="
    monkeypatch.setenv("XLA_FLAGS", chosen)
    assert process.apply_xla_flags()
    assert os.environ["XLA_FLAGS"] == chosen


def test_after_jax_is_imported_it_warns_and_changes_nothing(monkeypatch, caplog):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setitem(sys.modules, "jaxlib", object())
    assert not process.apply_xla_flags()
    assert os.environ["XLA_FLAGS"] == ""
    assert "CPU convolutions may be slow" in caplog.text


def test_a_jaxlib_that_refuses_is_left_alone(monkeypatch, tmp_path, no_jaxlib, caplog):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refusal = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refusal)
    assert not process.apply_xla_flags()
    assert os.environ["XLA_FLAGS"] == ""
    assert "refuses" in caplog.text
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jaxlib", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")
    assert not process.apply_xla_flags(), "the verdict is remembered"
