"""A tiny data set, written once a session, and a copy for whoever damages it."""

import shutil

import pytest

from tests.data.tiny_dataset import write_tiny_dataset


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pristine")
    write_tiny_dataset(directory)
    return directory


@pytest.fixture
def dataset(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "data")
