"""Tar archives, read in one pass and strictly: what is not a plain file ends the reading, and so does a missing end.

Python's own `tarfile` takes a damaged header for the end of the archive, and reads headers of any size into memory.
"""

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backbones.errors import DataError

_BLOCK = 512
_CHUNK = 2**20
_LONGEST_EXTENSION = 2**16  # bytes of a header of times and owners, which some programs write before each file
_RENAMES = re.compile(rb"^\d+ (path|linkpath|size|GNU\.sparse[^=]*)=", re.MULTILINE)


class Section:
    """A part of a stream, read in order and never beyond its end.

    Args:
        stream: a file or a section of one.
        size: bytes of this part, from where the stream is now.
        source: what to call it in messages.
    """

    def __init__(self, stream: Any, size: int, source: str):
        self._stream = stream
        self.left = size
        self.source = source

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or what is left of them.

        Raises:
            DataError: the stream ends before this part of it does.
        """
        size = min(size, self.left)
        try:
            data = self._stream.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error
        if len(data) < size:
            raise DataError(f"{self.source}: is cut off: get it again")
        self.left -= size
        return data

    def skip(self, size: int) -> None:
        """Leaves out the next `size` bytes, or what is left of them. Raises DataError as `read` does."""
        size = min(size, self.left)
        if isinstance(self._stream, Section):
            self._stream.skip(size)
            self.left -= size
        elif isinstance(self._stream, io.BufferedReader):
            self._stream.seek(size, os.SEEK_CUR)
            self.left -= size
        else:  # a compressed stream has nothing faster
            while size > 0:
                size -= len(self.read(min(size, _CHUNK)))

    def check_end(self) -> None:
        """Reads what is left of a compressed stream, whose checksum comes last. Raises DataError as `read` does."""
        try:
            while self.left > 0 and (data := self._stream.read(min(self.left, _CHUNK))):
                self.left -= len(data)
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.source}: can't be read: it is cut off or damaged ({error}): get it again")


@dataclass
class TarMember:
    """A plain file in an archive.

    Args:
        name: as the archive has it, and nothing to be trusted.
        size: in bytes.
        data: its content, to be read before the next member is asked for.
    """

    name: str
    size: int
    data: Section


def read_tar(archive: Section) -> Iterator[TarMember]:
    """The files of an archive in their order; folders are passed over.

    Raises:
        DataError: it is no tar archive, is damaged or cut off, or holds anything but files and folders.
    """
    first = True
    while True:
        block = archive.read(_BLOCK)
        if len(block) < _BLOCK:
            problem = "is not a tar archive" if first else "is cut off (a tar archive ends in zeros)"
            raise DataError(f"{archive.source}: {problem}: get it again")
        if block == bytes(_BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            problem = "is not a tar archive" if first else "is damaged"
            raise DataError(f"{archive.source}: {problem} ({error}): get it again") from error
        first = False
        if not 0 <= header.size <= archive.left:
            raise DataError(
                f"{archive.source}: ends within {header.name!r}, of {header.size:,} bytes: it is cut off or damaged; "
                "get it again"
            )
        padding = -header.size % _BLOCK
        data = Section(archive, header.size, f"{archive.source}: {ascii(header.name)[1:-1]}")
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            _check_extension(header, data)
        elif header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield TarMember(header.name, header.size, data)
        elif header.type != tarfile.DIRTYPE:
            raise DataError(
                f"{archive.source}: {header.name!r} is neither a file nor a folder (a link, device or other): get it "
                "again"
            )
        data.skip(data.left)
        archive.skip(padding)


def _check_extension(header: tarfile.TarInfo, data: Section) -> None:
    """A pax header may hold times and owners, but no other name or size of the file that follows."""
    if header.size > _LONGEST_EXTENSION or _RENAMES.search(data.read(header.size)):
        raise DataError(f"{data.source}: an extended header that is too long or renames a file: use tar --format=ustar")
