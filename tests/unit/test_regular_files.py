"""Files that are no files: a pipe must not be waited for."""

import os
from pathlib import Path

import pytest

from backbones.errors import DataError
from backbones.regular import read_regular_file


def test_reads_files_and_links_to_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00abc")
    (tmp_path / "b").symlink_to("a")
    assert read_regular_file(tmp_path / "a") == read_regular_file(str(tmp_path / "b")) == b"\x00abc"


def test_refuses_all_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path / "folder"):
        with pytest.raises(DataError, match=f"^{path}: is no file$"):
            read_regular_file(path)
    (tmp_path / "large").write_bytes(bytes(1001))
    with pytest.raises(DataError, match="large: larger than 1,000 bytes"):
        read_regular_file(tmp_path / "large", largest=1000)
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "nowhere")


def test_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}: is no file: name another$"):
        read_regular_file(tmp_path, advice="name another")
    (tmp_path / "large").write_bytes(bytes(2))
    with pytest.raises(DataError, match=r"as no such file is: name another$"):
        read_regular_file(tmp_path / "large", largest=1, advice="name another")
