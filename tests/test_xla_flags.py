"""The CPU convolution flag: appended once, never against the user's choice."""

import os
import subprocess
import sys

import pytest

from asccl_jax import xla_flags


@pytest.fixture
def no_jaxlib(monkeypatch):
    monkeypatch.delitem(sys.modules, "jaxlib", raising=False)


def test_the_flag_is_appended_to_what_is_there(monkeypatch, no_jaxlib):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert xla_flags.apply()
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_force_host_platform_device_count=8",
        xla_flags.CPU_CONVOLUTION_FLAG,
    ]


def test_the_users_choice_stands(monkeypatch, no_jaxlib):
    chosen = "--xla_cpu_experimental_ynn_fusion_type="
    monkeypatch.setenv("XLA_FLAGS", chosen)
    assert xla_flags.apply()
    assert os.environ["XLA_FLAGS"] == chosen


def test_after_jax_is_imported_it_warns_and_changes_nothing(monkeypatch, caplog):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setitem(sys.modules, "jaxlib", object())
    assert not xla_flags.apply()
    assert os.environ["XLA_FLAGS"] == ""
    assert "CPU convolutions may be slow" in caplog.text


def test_a_jaxlib_that_refuses_is_left_alone(monkeypatch, tmp_path, no_jaxlib, caplog):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refusal = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refusal)
    assert not xla_flags.apply()
    assert os.environ["XLA_FLAGS"] == ""
    assert "refuses" in caplog.text
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jaxlib", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")
    assert not xla_flags.apply(), "the verdict is remembered"
