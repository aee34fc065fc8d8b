"""Writing shards: tar files as WebDataset lays them out, so that webdataset, DALI and torchdata read them too."""

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from backbones.data.datasets import ClassificationDataset
from backbones.data.regular import read_regular_file
from backbones.data.shards.index import INDEX, ShardIndex, save_index, shard_name
from backbones.data.unpacking import LARGEST_PICTURE, Unpacking
from backbones.errors import DataError

PROGRESS = ".packing"  # what is done of shards that are being written
_LINE = re.compile(r"(\d+) (\d+) ([0-9a-f]{64})")
_READERS = 16  # threads that read pictures: of a network file system each may take a while to come


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


def pack(dataset: ClassificationDataset, source: Path, output: Path, *, shard_size: int, seed: int) -> ShardIndex:
    """Writes the pictures of a folder data set into shards, shuffled once, and their index.

    A run that was stopped goes on when it is started again: shards are written whole or not at all, and what is done
    is noted. All shards hold the same number of pictures, or one less.

    Args:
        dataset: its names are the pictures' files.
        source: the folder that these names are given relative to.
        output: the folder of the shards.
        shard_size: bytes of a shard, about.
        seed: of the shuffle: every shard is a fair sample of the classes.

    Raises:
        DataError: a picture can't be read, the folder can't be written, or holds the beginning of other shards.
    """
    plan = _plan(dataset, source, shard_size, seed)
    total = int(plan.lengths.sum())
    with Unpacking(output, output / ".shard.tmp", total, output.name) as folder, ThreadPoolExecutor(_READERS) as pool:
        done = _read_progress(output, plan)
        for shard in range(len(plan.pictures_by_shard)):
            if shard not in done:
                done[shard] = _write_shard(plan, shard, output, pool)
                with _writing(output), (output / PROGRESS).open("a") as file:
                    file.write(f"{shard} {done[shard][0]} {done[shard][1]}\n")
            folder.show(int(plan.lengths[: plan.pictures(shard).stop].sum()))
        index = _index(plan, dataset.class_names, done)
        with _writing(output):
            save_index(output / INDEX, index)
            (output / PROGRESS).unlink()
    return index


def remove_shards(output: Path) -> None:
    """Removes a split's shards and their index, and nothing else. Raises DataError if they can't be removed."""
    with _writing(output):
        for path in (output / INDEX, output / PROGRESS, *output.glob("shard-[0-9]*.tar")):
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
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _read_progress(output: Path, plan: _Plan) -> dict[int, tuple[int, str]]:
    """Size and digest of the shards that are done; begins the list where there is none."""
    path = output / PROGRESS
    with _writing(output):
        if not path.exists():
            path.write_text(f"{plan.digest()}\n")
        first, *lines = path.read_text().split("\n")[:-1]
    if first != plan.digest():
        raise DataError(
            f"{output}: holds the beginning of shards of other pictures, or with another seed or size: start anew with "
            "--overwrite"
        )
    found = [match for line in lines if (match := _LINE.fullmatch(line))]
    done = {int(match[1]): (int(match[2]), match[3]) for match in found}
    return {k: known for k, known in done.items() if _has_size(output / shard_name(k), known[0])}


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write_shard(plan: _Plan, shard: int, output: Path, pool: ThreadPoolExecutor) -> tuple[int, str]:
    """Writes one shard; gives its size in bytes and its digest."""
    pictures = plan.pictures(shard)
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for picture, data in zip(pictures, pool.map(lambda place: _read(plan, place), pictures), strict=True):
            key = f"{picture:09d}"
            _add(tar, key + plan.files[picture].suffix.lower(), data)
            _add(tar, f"{key}.cls", b"%d" % plan.labels[picture])
    with _writing(output):
        content.seek(0)
        with (output / ".shard.tmp").open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(output / ".shard.tmp", output / shard_name(shard))
    return content.getbuffer().nbytes, hashlib.sha256(content.getbuffer()).hexdigest()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # with neither time nor owner: the same pictures give the same bytes
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


def _read(plan: _Plan, picture: int) -> bytes:
    path = plan.files[picture]
    try:
        data = read_regular_file(path, largest=LARGEST_PICTURE)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    if not data or len(data) != plan.lengths[picture]:
        raise DataError(f"{path}: {'changes while it is read' if data else 'is empty'}: mend that and start again")
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
