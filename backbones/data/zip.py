"""Zip archives, read strictly: what is not a plain file is refused, and what unpacks to far more than its size."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backbones.data.unpacking import check_is_file
from backbones.errors import DataError

_MOST_TIMES = 200  # what files may grow to when they are unpacked; COCO's annotations grow to 6 times their size
_LOCAL_HEADER = 30  # bytes before the name of a file that stands in front of its content
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class ZipContent:
    """The content of a file in an archive; its checksum is compared where it ends."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str):
        self._archive = archive
        self._info = info
        self.source = source
        self._stream: IO[bytes] | None = None
        self._left = info.file_size

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes at most, none at the end.

        Raises:
            DataError: it is cut off or damaged.
        """
        try:
            if self._stream is None:
                self._stream = self._archive.open(self._info)
            data = self._stream.read(size)
        except _DAMAGE as error:
            raise DataError(f"{self.source}: is cut off or damaged ({error}): get it again") from error
        self._left -= len(data)
        if not data and self._left:
            raise DataError(f"{self.source}: is cut off or damaged (ends too early): get it again")
        return data


@dataclass
class ZipMember:
    """A plain file in an archive.

    Args:
        name: as the archive has it, and nothing to be trusted.
        size: in bytes.
        packed: bytes of the archive that it takes.
        data: its content.
    """

    name: str
    size: int
    packed: int
    data: ZipContent


@contextmanager
def open_zip(archive: Path) -> Iterator[list[ZipMember]]:
    """The files of an archive in their order; folders are passed over.

    Raises:
        DataError: it is no zip archive, is damaged or cut off, holds anything but files and folders, or would unpack to
            far more than its size.
    """
    check_is_file(archive)
    try:
        file = zipfile.ZipFile(archive)
    except _DAMAGE as error:
        raise DataError(f"{archive}: is not a zip archive, or is cut off ({error}): get it again") from error
    with file:
        infos = [info for info in file.infolist() if not info.filename.endswith("/")]
        seen: set[str] = set()
        for info in infos:
            _check(info, seen, f"{archive}: {_printable(info)}")
        _check_together(file, archive)
        yield [
            ZipMember(i.filename, i.file_size, i.compress_size, ZipContent(file, i, f"{archive}: {i.filename}"))
            for i in infos
        ]


def _check(info: zipfile.ZipInfo, seen: set[str], source: str) -> None:
    if not info.filename:
        raise DataError(f"{source}: holds a file without a name: the archive is damaged: get it again")
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise DataError(f"{source}: is neither a file nor a folder (a link, device or other): get the archive again")
    if info.flag_bits & 1:
        raise DataError(f"{source}: is encrypted, as nothing in the official archives is: get the archive again")
    if info.compress_type not in _METHODS:
        raise DataError(f"{source}: is packed by a method that is not supported; pack it by deflate")
    if info.file_size > _MOST_TIMES * (info.compress_size + 1000):
        raise DataError(
            f"{source}: would unpack to {info.file_size:,} bytes: the archive is damaged or hostile: get it again"
        )
    if info.filename in seen:
        raise DataError(f"{source}: is there twice: get the archive again")
    seen.add(info.filename)


def _check_together(file: zipfile.ZipFile, archive: Path) -> None:
    """A bomb has files which share their bytes, so that none of them alone is suspicious."""
    infos = sorted(file.infolist(), key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in infos[1:]), file.start_dir]  # the directory follows the last one
    for info, end in zip(infos, ends, strict=False):
        name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        if info.header_offset + _LOCAL_HEADER + len(name) + info.compress_size > end:
            raise DataError(
                f"{archive}: {_printable(info)}: overlaps what follows: the archive is damaged or hostile: get it again"
            )
    total = sum(info.file_size for info in infos)
    if total > _MOST_TIMES * archive.stat().st_size:
        raise DataError(
            f"{archive}: would unpack to {total:,} bytes in all: the archive is damaged or hostile: get it again"
        )


def _printable(info: zipfile.ZipInfo) -> str:
    return ascii(info.filename)[1:-1][:200]
