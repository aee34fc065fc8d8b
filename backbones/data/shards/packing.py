"""Writing shards: tar files as WebDataset lays them out, so that webdataset, DALI and torchdata read them too."""

import hashlib
import os
import re
import tarfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from backbones.data.datasets import ClassificationDataset
from backbones.data.shards.index import INDEX, ShardIndex, save_index, shard_name
from backbones.data.unpacking import LARGEST_PICTURE, Unpacking
from backbones.engine.checkpoint import write_atomically
from backbones.errors import DataError
from backbones.regular import read_regular_file

PROGRESS = ".packing"  # what is done of shards that are being written
_SHARD = re.compile(r"shard-\d{6}\.tar")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"(\d+) (\d+) ([0-9a-f]{64})")
_READERS = 16  # threads that read pictures: of a network file system each may take a while to come
_AHEAD = 2 * _READERS  # pictures in memory


@dataclass(frozen=True)
class _Plan:
    """Which picture goes where; a function of the pictures, the seed and the size of shards."""

    files: list[Path]
    names: list[str]
    labels: np.ndarray
    lengths: np.ndarray
    pictures_by_shard: np.ndarray

    def pictures(self, shard: int) -> range:
        end = int(self.pictures_by_shard[: shard + 1].sum())
        return range(end - int(self.pictures_by_shard[shard]), end)

    def digest(self) -> str:
        digest = hashlib.sha256("\n".join(self.names).encode("utf8", "surrogateescape"))
        for array in (self.labels, self.lengths, self.pictures_by_shard):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()


def pack(
    dataset: ClassificationDataset, source: Path, output: Path, *, shard_size: int, seed: int, overwrite: bool = False
) -> ShardIndex:
    """Writes the pictures of a folder data set into shards, shuffled once, and their index.

    A run that was stopped goes on when it is started again: shards are written whole or not at all, and what is done
    is noted. All shards hold the same number of pictures, or one less.

    Args:
        dataset: its names are the pictures' files.
        source: the folder that these names are given relative to.
        output: the folder of the shards.
        shard_size: bytes of a shard, about.
        seed: of the shuffle: every shard is a fair sample of the classes.
        overwrite: remove the shards that are there, once all pictures have been looked at.

    Raises:
        DataError: a picture is empty, too large or can't be read, the folder can't be written, or holds the beginning
            of other shards.
    """
    plan = _plan(dataset, source, shard_size, seed)
    total = int(plan.lengths.sum())
    with Unpacking(output, output / ".shard.tmp", total, output.name) as folder, ThreadPoolExecutor(_READERS) as pool:
        if overwrite:
            _remove_shards(output)
        done = _read_progress(output, plan)
        for shard in range(len(plan.pictures_by_shard)):
            if shard not in done:
                done[shard] = _write_shard(plan, shard, output, pool)
                with _writing(output), (output / PROGRESS).open("a") as file:
                    file.write(_line(shard, *done[shard]))
            folder.show(int(plan.lengths[: plan.pictures(shard).stop].sum()))
        index = _index(plan, dataset.class_names, done)
        with _writing(output):
            save_index(output / INDEX, index)
            (output / PROGRESS).unlink()
    return index


def _remove_shards(output: Path) -> None:
    """Removes a split's shards and their index, and nothing else."""
    with _writing(output):
        for path in (output / INDEX, output / PROGRESS, *output.iterdir()):
            if path.name in (INDEX, PROGRESS) or _SHARD.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _plan(dataset: ClassificationDataset, source: Path, shard_size: int, seed: int) -> _Plan:
    order = np.random.default_rng(seed).permutation(len(dataset))
    files = [Path(dataset.name(index)) for index in order.tolist()]
    with ThreadPoolExecutor(_READERS) as pool:
        lengths = np.array(list(pool.map(_length, files)))
    shards = min(max(1, -(-int(_taken(lengths).sum()) // shard_size)), len(files))
    ends = np.arange(1, shards + 1) * len(files) // shards
    names = [str(file.relative_to(source)) for file in files]
    return _Plan(files, names, dataset.labels[order], lengths, np.diff(ends, prepend=0))


def _length(path: Path) -> int:
    try:
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    if not 0 < length <= LARGEST_PICTURE:
        raise DataError(
            f"{path}: {f'larger than {LARGEST_PICTURE:,} bytes' if length else 'is empty'}: mend or move it"
        )
    return length


def _read_progress(output: Path, plan: _Plan) -> dict[int, tuple[int, str]]:
    """Size and digest of the shards that are done; begins the list where there is none, or none that can be read."""
    path, own = output / PROGRESS, plan.digest()
    with _writing(output):
        first, *lines = path.read_text(errors="replace").split("\n") if path.exists() else [""]
    if first != own and _DIGEST.fullmatch(first):
        raise DataError(
            f"{output}: holds the beginning of shards of other pictures, or with another seed or size: start anew with "
            "--overwrite"
        )
    found = [match for line in lines if first == own and (match := _LINE.fullmatch(line))]
    done = {int(match[1]): (int(match[2]), match[3]) for match in found}
    done = {k: known for k, known in done.items() if _has_size(output / shard_name(k), known[0])}
    text = "".join([f"{own}\n", *(_line(k, *known) for k, known in done.items())])
    with _writing(output):  # without lines that were cut, which another would be joined to
        write_atomically(path, lambda temporary: temporary.write_text(text))
    return done


def _line(shard: int, size: int, digest: str) -> str:
    return f"{shard} {size} {digest}\n"


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write_shard(plan: _Plan, shard: int, output: Path, pool: ThreadPoolExecutor) -> tuple[int, str]:
    """Writes one shard; gives its size in bytes and its digest."""
    with _writing(output):
        with (output / ".shard.tmp").open("wb") as file:
            hashed = _Hashed(file)
            with tarfile.open(fileobj=hashed, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
                for picture, data in _read_ahead(plan, plan.pictures(shard), pool):
                    key = f"{picture:09d}"
                    _add(tar, key + plan.files[picture].suffix.lower(), data)
                    _add(tar, f"{key}.cls", b"%d" % plan.labels[picture])
            file.flush()
            os.fsync(file.fileno())
        os.replace(output / ".shard.tmp", output / shard_name(shard))
    return hashed.size, hashed.digest.hexdigest()


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.size


def _read_ahead(plan: _Plan, pictures: range, pool: ThreadPoolExecutor) -> Iterator[tuple[int, bytes]]:
    """Pictures with their files, some of which are read before they are asked for."""
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    for picture in pictures:
        waiting.append((picture, pool.submit(_read, plan, picture)))
        if len(waiting) == _AHEAD:
            first, data = waiting.popleft()
            yield first, data.result()
    for picture, data in waiting:
        yield picture, data.result()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # with neither time nor owner: the same pictures give the same bytes
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


def _read(plan: _Plan, picture: int) -> bytes:
    path = plan.files[picture]
    try:
        data = read_regular_file(path, largest=LARGEST_PICTURE, advice="mend or move it")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    if len(data) != plan.lengths[picture]:
        raise DataError(f"{path}: changes while shards are made: mend that and start again")
    return data


def _index(plan: _Plan, class_names: list[str], done: dict[int, tuple[int, str]]) -> ShardIndex:
    shards = range(len(plan.pictures_by_shard))
    names = [name.encode("utf8", "surrogateescape") for name in plan.names]
    return ShardIndex(
        class_names,
        shard_sizes=np.array([done[shard][0] for shard in shards]),
        shard_digests=np.array([list(bytes.fromhex(done[shard][1])) for shard in shards], np.uint8),
        pictures_by_shard=plan.pictures_by_shard,
        offsets=np.concatenate([_offsets(plan, shard) for shard in shards]),
        lengths=plan.lengths.astype(np.int32),
        labels=plan.labels.astype(np.int32),
        name_ends=np.array([len(name) for name in names]).cumsum(),
        names=np.frombuffer(b"".join(names), np.uint8),
    )


def _offsets(plan: _Plan, shard: int) -> np.ndarray:
    """Where the pictures of a shard begin."""
    taken = _taken(plan.lengths[plan.pictures(shard)])
    return taken.cumsum() - taken + tarfile.BLOCKSIZE


def _taken(lengths: np.ndarray) -> np.ndarray:
    """Bytes of a tar file for each picture: a header of a block, the picture, and two blocks of the class."""
    block = tarfile.BLOCKSIZE
    return block + -(-lengths // block) * block + 2 * block


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{output}: can't be written ({error.strerror}); mend that and start again: what is there stays"
        ) from error
