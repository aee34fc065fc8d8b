"""Shards behind a URL, fetched to a bounded cache that processes share."""

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from shard_files import make_shards

from backbones.config import ClassificationData, check_data
from backbones.data.readers import read_split
from backbones.data.shards import cache, storage
from backbones.data.shards.cache import ShardCache, describe_small_cache
from backbones.data.shards.reading import read_shards
from backbones.data.shards.verifying import verify_split
from backbones.errors import ConfigError, DataError


@pytest.fixture
def local(tmp_path: Path) -> Path:
    make_shards(tmp_path)
    return tmp_path / "shards"


@pytest.fixture
def remote(local: Path) -> Iterator[str]:
    """The same shards at a URL."""
    memory = fsspec.filesystem("memory")
    for path in (local / "train").iterdir():
        memory.pipe_file(f"/bucket/train/{path.name}", path.read_bytes())
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["memory", "file", "folder"])
def test_pictures_are_those_of_the_local_shards(local: Path, remote: str, tmp_path: Path, kind: str) -> None:
    root = {"memory": remote, "file": f"file://{local}", "folder": str(local)}[kind]
    here = read_split("shards", str(local), "train", None, 0, 0)
    there = read_split("shards", root, "train", None, 0, 0, cache=str(tmp_path / "cache"))
    assert there.fingerprint() == here.fingerprint()
    for k in range(len(here)):
        assert there.encoded(k) == here.encoded(k)  # type: ignore[misc]
    assert len(contents(tmp_path / "cache")) == len(here.pictures_by_shard)  # type: ignore[arg-type]
    assert all(name.endswith(".tar") for name in contents(tmp_path / "cache"))


def test_the_cache_is_bounded_and_open_shards_stay_readable(remote: str, local: Path, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in (local / "train").glob("*.tar")]
    limit = 2 * max(sizes)
    shards = ShardCache(tmp_path / "cache", limit)
    dataset = read_shards(remote, "train", cache=shards)
    first = dataset.encoded(0)  # type: ignore[misc]
    for k in range(len(dataset)):
        dataset.picture(k)
        assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= limit
    assert len(sizes) > 3
    assert dataset.encoded(0) == first  # type: ignore[misc]
    again = read_shards(remote, "train", cache=shards)
    assert again.encoded(0) == first  # type: ignore[misc]  # fetched again
    with pytest.raises(ConfigError, match=r"data.cache_gigabytes 1e-08: memory://bucket/train/shard-000000.tar has"):
        read_shards(remote, "train", cache=ShardCache(tmp_path / "cache", 10)).picture(0)


def test_the_shard_that_was_opened_last_stays(remote: str, local: Path, tmp_path: Path) -> None:
    index = np.array([path.stat().st_size for path in sorted((local / "train").glob("*.tar"))])
    shards = ShardCache(tmp_path / "cache", int(index[:3].max()) * 2)
    firsts = [0, *read_shards(str(local), "train").pictures_by_shard.cumsum().tolist()]  # type: ignore[union-attr]

    def use(shard: int) -> list[str]:
        before = set(contents(tmp_path / "cache"))
        read_shards(remote, "train", cache=shards).picture(firsts[shard])
        time.sleep(0.01)
        return sorted(set(contents(tmp_path / "cache")) - before)

    (zero,), (one,) = use(0), use(1)
    assert use(0) == []  # is there, and now younger than 1
    (two,) = use(2)
    assert set(contents(tmp_path / "cache")) == {zero, two}
    assert one not in contents(tmp_path / "cache")


def test_processes_that_ask_at_once_fetch_once(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = tmp_path / "fetched"
    copy = storage.copy_file

    def copy_slowly(place: str, target: Path) -> None:
        with fetched.open("a") as file:
            file.write(f"{place}\n")
        time.sleep(0.05)
        copy(place, target)

    monkeypatch.setattr(cache, "copy_file", copy_slowly)
    dataset = read_shards(f"file://{local}", "train", cache=ShardCache(tmp_path / "cache", 10**9))
    expected = read_shards(str(local), "train")
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            code = 1
            try:
                code = int(any(dataset.encoded(k) != expected.encoded(k) for k in range(len(dataset))))  # type: ignore[misc]
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    places = fetched.read_text().split()
    assert len(places) == len(set(places)) == len(expected.pictures_by_shard)  # type: ignore[arg-type]
    assert all(name.endswith(".tar") for name in contents(tmp_path / "cache"))


def test_threads_may_share_one(remote: str, tmp_path: Path) -> None:
    dataset = read_shards(remote, "train", cache=ShardCache(tmp_path / "cache", 10**9))
    found: list[list[bytes]] = []

    def read() -> None:
        found.append([dataset.encoded(k) for k in range(len(dataset))])  # type: ignore[misc]

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(read == found[0] for read in found)


def test_what_another_process_left_half_is_fetched_again(remote: str, tmp_path: Path) -> None:
    shards = ShardCache(tmp_path / "cache", 10**9)
    dataset = read_shards(remote, "train", cache=shards)
    expected = dataset.encoded(0)  # type: ignore[misc]
    (path,) = (tmp_path / "cache").iterdir()
    path.rename(path.with_suffix(".new"))
    os.truncate(path.with_suffix(".new"), 5)
    path.with_suffix(".lock").touch()
    assert read_shards(remote, "train", cache=shards).encoded(0) == expected  # type: ignore[misc]
    os.truncate(path, 5)  # the disk lost power
    assert read_shards(remote, "train", cache=shards).encoded(0) == expected  # type: ignore[misc]
    assert contents(tmp_path / "cache") == [path.name]


def test_damage_is_named(remote: str, local: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    name = "/bucket/train/shard-000000.tar"
    content = memory.cat_file(name)

    def error() -> str:
        with pytest.raises(DataError) as raised:
            read_shards(remote, "train", cache=ShardCache(tmp_path / "cache", 10**9)).picture(0)
        assert contents(tmp_path / "cache") == []
        return str(raised.value)

    memory.pipe_file(name, content[:-1])
    assert f"shard-000000.tar: has {len(content) - 1:,} bytes, the index says {len(content):,}" in error()
    memory.pipe_file(name, content[:-1] + b"x")
    assert "shard-000000.tar: is damaged" in error()
    memory.rm(name)
    assert error() == "memory://bucket/train/shard-000000.tar: no such file"


def test_a_storage_that_fails_is_asked_again(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_WAITS", (0.0, 0.0))
    memory = type(fsspec.filesystem("memory"))
    whole, calls = memory.get_file, []

    def get_file(self: object, *args: object, **options: object) -> None:
        calls.append(args)
        if len(calls) < failures:
            raise ConnectionResetError("reset by peer")
        whole(self, *args, **options)

    monkeypatch.setattr(memory, "get_file", get_file)
    failures = 3
    read_shards(remote, "train", cache=ShardCache(tmp_path / "cache", 10**9)).picture(0)
    assert len(calls) == 3
    failures = 99
    with pytest.raises(DataError, match=r"shard-\d+.tar: can't be read \(reset by peer\)"):
        read_shards(remote, "train", cache=ShardCache(tmp_path / "other", 10**9)).picture(0)


def test_what_is_missing_is_named(remote: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.cache is missing"):
        read_split("shards", remote, "train", None, 0, 0)
    with pytest.raises(DataError, match=r"memory://bucket/val/index.safetensors: no such file"):
        read_split("shards", remote, "val", None, 0, 0, cache=str(tmp_path))
    with pytest.raises(ConfigError, match=r"nonsense://x/train/index.safetensors: this storage can't be used"):
        read_split("shards", "nonsense://x", "train", None, 0, 0, cache=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: data.cache can't be used"):
        read_split("shards", remote, "train", None, 0, 0, cache=str(tmp_path / "file"))


def test_other_files_of_its_folder_are_left_alone(local: Path, tmp_path: Path) -> None:
    """The cache may be the shards' own folder, which holds tar files of other names."""
    expected = read_shards(str(local), "train")
    before = {path.name: path.read_bytes() for path in (local / "train").iterdir()}
    size = max(len(content) for name, content in before.items() if name.endswith(".tar"))
    dataset = read_shards(f"file://{local}", "train", cache=ShardCache(local / "train", size))
    for name in ("backup.tar", "a.new", "b.lock"):
        before[name] = b"mine"
        (local / "train" / name).write_bytes(b"mine")
    for k in range(len(dataset)):
        assert dataset.encoded(k) == expected.encoded(k)  # type: ignore[misc]
    after = {path.name: path.read_bytes() for path in (local / "train").iterdir()}
    assert {name: after.get(name) for name in before} == before
    assert len(after) == len(before) + 1  # the cache holds one


def test_what_killed_processes_left_goes_and_what_others_fetch_stays(remote: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shards = ShardCache(folder, 10**9)
    left, lonely, fetched = (letter * 64 for letter in "abc")
    for name in (f"{left}.new", f"{left}.lock", f"{lonely}.lock", f"{fetched}.new", f"{fetched}.lock"):
        (folder / name).touch()
    with (folder / f"{fetched}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process is at it
        read_shards(remote, "train", cache=shards).picture(0)
    (shard,) = folder.glob("*.tar")
    assert contents(folder) == sorted([f"{fetched}.lock", f"{fetched}.new", shard.name])


def test_a_full_disk_is_not_the_storage_s_fault(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def get_file(self: object, rpath: str, lpath: str, **options: object) -> None:
        calls.append(rpath)
        Path(lpath).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", get_file)
    with pytest.raises(DataError) as raised:
        read_shards(remote, "train", cache=ShardCache(tmp_path / "cache", 10**9)).picture(0)
    assert str(raised.value) == f"{tmp_path}/cache: data.cache can't be used (No space left on device)"
    assert len(calls) == 1
    assert contents(tmp_path / "cache") == []


def test_another_user_s_shard_is_used(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ShardCache(tmp_path / "cache", 10**9)
    expected = read_shards(remote, "train", cache=shards).encoded(0)  # type: ignore[misc]

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert read_shards(remote, "train", cache=shards).encoded(0) == expected  # type: ignore[misc]


def test_a_small_file_is_small_though_the_storage_tells_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/small/file", bytes(1000))
    monkeypatch.setattr(type(memory), "info", lambda self, path: {"size": None})
    monkeypatch.delattr(type(memory), "cat_file")  # which would read all there is
    assert storage.read_small_file("memory://small/file", largest=1000) == bytes(1000)
    with pytest.raises(DataError, match=r"memory://small/file: larger than 999 bytes"):
        storage.read_small_file("memory://small/file", largest=999)


def test_local_folders_may_have_any_name(tmp_path: Path) -> None:
    for name in ("memory::x", "a:b", "~home", "x:"):
        (tmp_path / name).mkdir()
        make_shards(tmp_path / name)
        root = str(tmp_path / name / "shards")
        verify_split(root, "train")
        dataset = read_shards(root, "train", cache=ShardCache(tmp_path / name / "cache", 10**9))
        assert dataset.encoded(0) == read_shards(root, "train").encoded(0)  # type: ignore[misc]
    assert [storage.is_url(root) for root in ("s3://b/x", "gs://b", "/data/s3://x", "a/http://b", "c:d", "x::y")] == [
        *(True, True, False, False, False, False)
    ]


def test_verifying_reads_no_further_than_the_index_says(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    verify_split(remote, "train")
    name = "/bucket/train/shard-000001.tar"
    size = len(memory.cat_file(name))
    memory.pipe_file(name, memory.cat_file(name) + bytes(10**6))
    with pytest.raises(DataError, match=rf"shard-000001.tar: has not the {size:,} bytes that the index says"):
        verify_split(remote, "train")
    monkeypatch.setattr(type(memory), "info", lambda self, path: {"size": None})  # only reading tells
    read: list[int] = []
    update = hashlib.sha256

    class Counting:
        def __init__(self) -> None:
            self.digest, self.update = update().digest, lambda chunk: read.append(len(chunk))

    monkeypatch.setattr("backbones.data.shards.verifying.hashlib.sha256", Counting)
    monkeypatch.setattr("backbones.data.shards.verifying.shard_name", lambda shard: "shard-000001.tar")
    with pytest.raises(DataError, match=r"has not the"):
        verify_split(remote, "train")
    assert sum(read) <= size + 1


def test_verifying_names_what_a_storage_says(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class PayloadError(Exception):  # as aiohttp's, which is no OSError
        pass

    class Failing:
        def __enter__(self) -> "Failing":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read(self, size: int) -> bytes:
            raise PayloadError("transfer closed")

    monkeypatch.setattr(storage, "_WAITS", (0.0, 0.0))
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", lambda *args: Failing())
    with pytest.raises(DataError, match=r"shard-000000.tar: can't be read \(transfer closed\)"):
        verify_split(remote, "train")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "folder", "cache": "c"}, "data.cache c: only shards are fetched to it, not data.name folder"),
        ({"cache_gigabytes": 0.0}, "data.cache_gigabytes 0.0: give a number above 0"),
        ({"cache_gigabytes": -1.0}, "data.cache_gigabytes -1.0: give"),
        ({"cache_gigabytes": float("inf")}, "data.cache_gigabytes inf: give"),
        ({"cache_gigabytes": float("nan")}, "data.cache_gigabytes nan: give"),
    ],
)
def test_keys_of_a_cache_that_make_no_sense_are_named(
    local: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    keys = {"name": "shards", "root": str(local), "cache": str(tmp_path / "c")} | changes
    with pytest.raises(ConfigError, match=problem):
        check_data(ClassificationData(**keys))
    with pytest.raises(ConfigError, match=problem):  # as of tests and from Python
        read_split(keys.pop("name"), keys.pop("root"), "train", None, 0, 0, **keys)
    assert not (tmp_path / "c").exists()


def test_a_cache_that_is_too_small_for_the_streams_is_named() -> None:
    assert describe_small_cache(3.0, [10**9] * 50, 3) == []
    assert describe_small_cache(3.0, [10**9] * 2, 99) == []
    (line,) = describe_small_cache(1.0, [10**9, 2 * 10**9, 10**9, 5], 3)
    assert line == (
        "data.cache_gigabytes 1: streams use 3 shards at a time, 6 GB: shards will be fetched again and again"
    )
