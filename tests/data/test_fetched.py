"""A data set in a bucket: fetched once, gone on with after an interruption, fetched anew where it changed."""

import fsspec
import pytest

from asccl_jax.data import fetched
from asccl_jax.data.fetched import local_directory, mirror_folder
from asccl_jax.errors import InputError, WriteError
from asccl_jax.remote_folder import RemoteFolder

FILES = {f"shard-{number}": b"%d" % number * 100 for number in range(40)}


class CountingFolder(RemoteFolder):
    """Notes what is fetched; fails after so many files, as a kill would."""

    def __init__(self, files):
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        super().__init__("memory://bucket/set", memory)
        memory.pipe({f"/bucket/set/{name}": content for name, content in files.items()})
        self.fetched = []
        self.fail_after = None

    def fetch(self, files, directory):
        for name in super().fetch(files, directory):
            self.fetched.append(name)
            yield name
            if len(self.fetched) == self.fail_after:
                raise KeyboardInterrupt


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def test_each_file_is_fetched_once(tmp_path):
    remote = CountingFolder(FILES)
    for _ in range(2):
        mirror_folder(remote, tmp_path)
    assert contents(tmp_path) == FILES
    assert sorted(remote.fetched) == sorted(FILES)


def test_an_interrupted_fetch_goes_on(tmp_path):
    remote = CountingFolder(FILES)
    remote.fail_after = 25
    with pytest.raises(KeyboardInterrupt):
        mirror_folder(remote, tmp_path)
    with (tmp_path / ".fetched.jsonl").open("a") as index:
        index.write('["shard-3')  # as a kill in the middle of a write leaves it
    remote.fail_after = None
    mirror_folder(remote, tmp_path)
    assert contents(tmp_path) == FILES
    # The last one may have been on its way to being noted.
    assert len(remote.fetched) <= len(FILES) + 1


def test_only_what_changed_is_fetched_again_and_what_is_gone_goes(tmp_path):
    mirror_folder(CountingFolder(FILES), tmp_path)
    changed = {**FILES, "shard-7": b"longer" * 100}
    del changed["shard-9"]
    remote = CountingFolder(changed)
    (tmp_path / "shard-11").write_bytes(b"cut short")
    mirror_folder(remote, tmp_path)
    assert contents(tmp_path) == changed
    assert sorted(remote.fetched) == ["shard-11", "shard-7"]


def test_an_empty_folder_and_a_small_disk_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="memory://bucket/set: no files there"):
        mirror_folder(CountingFolder({}), tmp_path)
    monkeypatch.setattr(fetched.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(WriteError, match=r"cannot fetch memory://bucket/set to .* set XDG_CACHE_HOME"):
        mirror_folder(CountingFolder(FILES), tmp_path)


def test_a_bucket_s_folder_becomes_one_of_the_cache_and_a_local_one_stays(bucket, tmp_path, monkeypatch):
    assert local_directory("records") == fetched.Path("records")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fsspec.filesystem("gcs").pipe({"emulated/sets/one/deep/a": b"one", "emulated/sets/one/b": b"two"})
    directory = local_directory(f"{bucket}/sets/one/")
    assert directory == tmp_path / "asccl-jax/data/emulated%2Fsets%2Fone"
    assert (directory / "deep/a").read_bytes() == b"one"
