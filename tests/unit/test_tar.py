"""The strict tar reader against archives that Python's `tarfile` writes."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import tar

from backbones.data.tar import Section, read_tar
from backbones.errors import DataError

FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9})?", fullmatch=True), st.binary(max_size=1500), max_size=4
)
FORMS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def read(archive: bytes) -> dict[str, bytes]:
    section = Section(io.BytesIO(archive), len(archive), "a.tar")
    return {member.name: member.data.read(member.size) for member in read_tar(section)}


@settings(max_examples=60, deadline=None)
@given(FILES, FORMS)
def test_reads_what_was_written(files: dict[str, bytes], form: int) -> None:
    archive = tar(files, form)
    assert read(archive) == files
    section = Section(io.BytesIO(archive), len(archive), "a.tar")
    assert {member.name: member.size for member in read_tar(section)} == {n: len(c) for n, c in files.items()}


@settings(max_examples=60, deadline=None)
@given(FILES, st.data())
def test_a_cut_is_always_found(files: dict[str, bytes], data: st.DataObject) -> None:
    archive = tar(files)
    needed = sum(512 + len(c) + -len(c) % 512 for c in files.values()) + 512
    cut = data.draw(st.integers(0, needed - 1))
    with pytest.raises(DataError, match=r"^a\.tar: "):
        read(archive[:cut])
    assert read(archive[:needed]) == files


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_header_is_found(data: st.DataObject) -> None:
    files = {"a": b"x" * 600, "b": b"y" * 600}
    archive = bytearray(tar(files))
    start = data.draw(st.sampled_from([0, 512 + 1024]))
    # Not the checksum itself (148 to 155), which can be written in several ways.
    place = start + data.draw(st.integers(0, 147) | st.integers(156, 344))
    archive[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataError, match="is not a tar archive" if start == 0 else "is damaged"):
        read(bytes(archive))


def member(name: str, form: int = tarfile.GNU_FORMAT, **values: object) -> bytes:
    """An archive of one member with these properties, of 10 bytes."""
    info = tarfile.TarInfo(name)
    for key, value in {"size": 10, **values}.items():
        setattr(info, key, value)
    return info.tobuf(form) + b"0123456789".ljust(512, b"\0") + bytes(1024)


@pytest.mark.parametrize(
    ("archive", "named"),
    [
        (member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), "'x' is neither a file nor a folder"),
        (member("x", type=tarfile.LNKTYPE, linkname="y", size=0), "'x' is neither"),
        (member("x", type=tarfile.CHRTYPE, size=0), "'x' is neither"),
        (member("x", type=tarfile.FIFOTYPE, size=0), "'x' is neither"),
        (member("x", type=tarfile.GNUTYPE_SPARSE), "'x' is neither"),
        (member("x" * 200), "neither a file nor a folder"),  # GNU's long name
        (member("x" * 300, form=tarfile.PAX_FORMAT), "an extended header .* renames"),
        (member("x", pax_headers={"size": "99999"}, form=tarfile.PAX_FORMAT), "an extended header"),
        (member("x", pax_headers={"comment": "z" * 70000}, form=tarfile.PAX_FORMAT), "an extended header"),
        (member("x", size=2**40), "ends within 'x', of 1,099,511,627,776 bytes"),
        (member("x", size=2**70), "ends within 'x'"),
        (b"", "is not a tar archive"),
        (b"PK\3\4" * 300, "is not a tar archive"),
    ],
)
def test_what_is_hostile_or_foreign_is_refused(archive: bytes, named: str) -> None:
    with pytest.raises(DataError, match=named):
        read(archive)


def test_times_in_extended_headers_and_folders_do_not_matter() -> None:
    assert read(member("x", mtime=1.5, form=tarfile.PAX_FORMAT)) == {"x": b"0123456789"}
    folder = member("f", type=tarfile.DIRTYPE, size=0)[:512]
    assert read(folder + member("x")) == {"x": b"0123456789"}


def test_a_section_ends_where_it_should() -> None:
    outer = Section(io.BytesIO(b"0123456789"), 8, "outer")
    inner = Section(outer, 5, "inner")
    assert inner.read(3) == b"012"
    inner.skip(100)
    assert inner.read(9) == b""
    assert outer.read(100) == b"567"
    with pytest.raises(DataError, match="short: is cut off"):
        Section(io.BytesIO(b"012"), 8, "short").read(8)
