"""A data set in a bucket: fetched once, gone on with after an interruption, fetched anew where it changed."""

import sys
from pathlib import Path

import fsspec
import pytest

from asccl_jax import buckets
from asccl_jax.buckets import RemoteFile, RemoteFolder, local_directory, mirror_folder, open_remote
from asccl_jax.errors import InputError, WriteError, writing
from asccl_jax.train.checkpoints.checkpoint_folder import DamagedError
from asccl_jax.train.checkpoints.checkpoint_folder import reading as reading_checkpoint

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
    monkeypatch.setattr(buckets.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(WriteError, match=r"cannot fetch memory://bucket/set to .* set XDG_CACHE_HOME"):
        mirror_folder(CountingFolder(FILES), tmp_path)


def test_a_bucket_s_folder_becomes_one_of_the_cache_and_a_local_one_stays(bucket, tmp_path, monkeypatch):
    assert local_directory("records") == buckets.Path("records")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fsspec.filesystem("gcs").pipe({"emulated/sets/one/deep/a": b"one", "emulated/sets/one/b": b"two"})
    directory = local_directory(f"{bucket}/sets/one/")
    assert directory == tmp_path / "asccl-jax/data/emulated%2Fsets%2Fone"
    assert (directory / "deep/a").read_bytes() == b"one"


@pytest.fixture
def remote():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    return RemoteFolder("memory://bucket/folder", memory)


def write(directory, files):
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def test_what_is_sent_is_listed_and_comes_back_by_its_name(remote, tmp_path):
    files = {"a.txt": b"one", "b/c.bin": bytes(range(256)) * 5000, "b/empty": b""}
    write(tmp_path / "here", files)
    assert remote.files() == {}
    remote.send(tmp_path / "here", list(files))
    listed = remote.files()
    assert {name: file.size for name, file in listed.items()} == {name: len(files[name]) for name in files}
    assert sorted(remote.fetch(listed, tmp_path / "there")) == sorted(files)
    assert {name: (tmp_path / "there" / name).read_bytes() for name in files} == files


def test_the_listing_of_an_emulated_bucket_has_checksums_and_what_comes_back_has_them(bucket, tmp_path):
    files = {"a.txt": b"one", "b/c.bin": bytes(range(256)) * 500, "b/empty": b""}
    write(tmp_path / "here", files)
    remote = open_remote(f"{bucket}/sent")
    remote.send(tmp_path / "here", list(files))
    remote.copy({"a.txt": "copied/a.txt"})
    remote.remove(["a.txt"])
    listed = remote.files()
    assert sorted(listed) == ["b/c.bin", "b/empty", "copied/a.txt"]
    assert all(file.crc32c for file in listed.values())
    assert sorted(remote.fetch(listed, tmp_path / "there")) == sorted(listed)
    assert (tmp_path / "there/copied/a.txt").read_bytes() == b"one"


@pytest.mark.parametrize("listed", [RemoteFile(4, None), RemoteFile(3, "AAAAAA==")])
def test_a_file_that_is_not_what_was_listed_never_gets_its_name(remote, tmp_path, listed):
    write(tmp_path / "here", {"a.txt": b"one"})
    remote.send(tmp_path / "here", ["a.txt"])
    with pytest.raises(InputError, match=r"memory://bucket/folder/a\.txt: 3 bytes arrived .* try again"):
        list(remote.fetch({"a.txt": listed}, tmp_path / "there"))
    assert list((tmp_path / "there").iterdir()) == []


def test_without_gcsfs_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r'^gs://b/x: buckets need gcsfs.*pip install "asccl-jax\[gcs\]"$'):
        open_remote("gs://b/x")


@pytest.mark.parametrize("address", ["gs://", "gs://bucket"])
def test_an_address_names_a_bucket_and_a_folder(address):
    with pytest.raises(InputError, match=r"expected gs://BUCKET/FOLDER"):
        open_remote(address)


def test_what_tensorstore_says_of_a_bucket_it_cannot_write_is_one_line():
    told = "PERMISSION_DENIED: Error writing gs://b/x/1/state: Forbidden [http_response_code='403']"
    expected = r"^cannot write gs://b/x: PERMISSION_DENIED: .*: Forbidden$"
    with pytest.raises(WriteError, match=expected), writing("gs://b/x"):
        raise ValueError(told)
    with pytest.raises(ValueError, match="of another kind"), writing("gs://b/x"):
        raise ValueError("a mistake of another kind")


def test_a_bucket_that_does_not_answer_makes_no_checkpoint_a_damaged_one():
    with pytest.raises(InputError, match="cannot be read") as caught, reading_checkpoint(Path("gs://b/x/4")):
        raise ValueError("UNAVAILABLE: Error reading gs://b/x/4/state/manifest.ocdbt: CURL error")
    assert not isinstance(caught.value, DamagedError)
    with pytest.raises(DamagedError), reading_checkpoint(Path("gs://b/x/4")):
        raise ValueError("NOT_FOUND: Error reading gs://b/x/4/state/manifest.ocdbt")


def test_a_bucket_that_is_not_there_is_one_line(bucket):
    with pytest.raises(InputError, match=r"^cannot read gs://nowhere/x: no such bucket[^\n]*$"):
        open_remote("gs://nowhere/x")
