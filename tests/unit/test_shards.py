"""Shards hold the folder's files byte for byte, where the index and any reader of tar files find them."""

import fcntl
import gc
import os
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shard_files import make_folder, make_shards

from backbones.data.folder import read_folder
from backbones.data.readers import read_split
from backbones.data.shards import packing
from backbones.data.shards.index import shard_name
from backbones.data.shards.packing import pack
from backbones.data.shards.reading import read_shards
from backbones.errors import ConfigError, DataError
from detection.prepare import main


def by_name(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.*")) if path.is_file()}


def test_every_file_comes_back_by_offset_with_its_class(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    assert len(index.pictures_by_shard) > 2
    folder = read_folder(tmp_path / "folder", "train")
    dataset = read_shards(str(tmp_path / "shards"), "train")
    assert dataset.class_names == folder.class_names == ["ape", "b.bee", "cow"]
    assert dataset.encoded is not None
    read = {dataset.name(k).split(": ")[1]: dataset.encoded(k) for k in range(len(dataset))}
    assert read == by_name(tmp_path / "folder/train")
    for k in range(len(dataset)):
        assert dataset.name(k).split(": ")[1].split("/")[0] == dataset.class_names[dataset.labels[k]]
    place = {folder.name(k).split("/train/")[1]: k for k in range(len(folder))}
    for k in range(len(dataset)):
        same = folder.picture(place[dataset.name(k).split(": ")[1]])
        np.testing.assert_array_equal(np.asarray(dataset.picture(k)), np.asarray(same))
    assert np.ptp(index.pictures_by_shard) <= 1
    assert [dataset.name(k).split(": ")[1] for k in range(21)] != sorted(read)  # they are shuffled


def test_python_s_tarfile_reads_them_in_webdataset_s_layout(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    found = []
    for shard, count in enumerate(index.pictures_by_shard):
        with tarfile.open(tmp_path / "shards/train" / shard_name(shard)) as tar:
            members = tar.getmembers()
            contents = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
        assert len(members) == 2 * count
        for place in range(0, len(members), 2):
            key, ending = members[place].name.split(".")  # WebDataset's key ends at the first dot
            assert ending in ("jpeg", "png")
            assert members[place + 1].name == f"{key}.cls"
            found.append((members[place].offset_data, contents[place], int(contents[place + 1])))
    assert [offset for offset, _, _ in found] == index.offsets.tolist()
    assert [len(data) for _, data, _ in found] == index.lengths.tolist()
    assert [label for _, _, label in found] == index.labels.tolist()
    assert Counter(data for _, data, _ in found) == Counter(by_name(tmp_path / "folder/train").values())


def test_shards_are_as_large_as_asked_for(tmp_path: Path) -> None:
    """With the headers of their small pictures; a tar file's length is a multiple of 10,240."""
    index = make_shards(tmp_path, shard_size=20_000)
    assert index.lengths.sum() < 20_000  # without headers one shard would do
    assert index.shard_sizes.tolist() == [20_480] * 3


def test_webdataset_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    index = make_shards(tmp_path)
    files = [str(tmp_path / "shards/train" / shard_name(k)) for k in range(len(index.shard_sizes))]
    dataset = read_shards(str(tmp_path / "shards"), "train")
    read = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil").to_tuple("jpeg;png", "cls"))
    assert len(read) == len(dataset)
    for k, (picture, label) in enumerate(read):
        assert label == dataset.labels[k]
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.asarray(dataset.picture(k)))


def test_a_network_s_classes_decide_the_labels(tmp_path: Path) -> None:
    make_shards(tmp_path)
    own = read_shards(str(tmp_path / "shards"), "train")
    dataset = read_split("shards", str(tmp_path / "shards"), "train", ["cow", "ape", "eel", "b.bee"], 0, 0)
    assert dataset.labels.tolist() == [{0: 1, 1: 3, 2: 0}[label] for label in own.labels.tolist()]
    with pytest.raises(DataError, match=r"train: class 'b.bee' is not one of the network's 2 classes"):
        read_split("shards", str(tmp_path / "shards"), "train", ["cow", "ape"], 0, 0)


def test_the_fingerprint_follows_the_pictures(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        make_folder(tmp_path / name)
    changed = tmp_path / "c/train/ape/1.x.JPEG"
    data = bytearray(changed.read_bytes())
    data[-3] ^= 1
    changed.write_bytes(data)
    prints = []
    for name, seed in [("a", 0), ("b", 0), ("c", 0), ("d", 1)]:
        folder = read_folder(tmp_path / name, "train")
        pack(folder, tmp_path / name / "train", tmp_path / f"{name}-shards/train", shard_size=2500, seed=seed)
        prints.append(read_shards(str(tmp_path / f"{name}-shards"), "train").fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards(tmp_path)
    whole = by_name(tmp_path / "shards")
    folder, source, output = read_folder(tmp_path / "folder", "train"), tmp_path / "folder/train", tmp_path / "again"
    written: list[int] = []
    write = packing._write_shard

    def stop_at_the_third(plan: packing._Plan, shard: int, *rest: object) -> tuple[int, str]:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        return write(plan, shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "_write_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, source, output / "train", shard_size=2500, seed=3)
    with (output / "train/.packing").open("a") as file:
        file.write("2 40")  # the last line of a run that was killed
    with pytest.raises(DataError, match=r"again/train: holds the beginning of shards of other pictures.*--overwrite"):
        pack(folder, source, output / "train", shard_size=2500, seed=4)
    monkeypatch.setattr(packing, "_write_shard", lambda *args: written.append(args[1]) or write(*args))
    pack(folder, source, output / "train", shard_size=2500, seed=3)
    assert written == list(range(len(written)))  # none twice
    assert by_name(output) == whole


def test_damage_is_named(tmp_path: Path) -> None:
    make_shards(tmp_path)
    root = str(tmp_path / "shards")
    shard = tmp_path / "shards/train/shard-000000.tar"
    content = shard.read_bytes()
    opened = read_shards(root, "train")
    opened.picture(0)
    os.truncate(shard, 600)  # while it is read
    with pytest.raises(DataError, match=r"shard-000000.tar: is cut off"):
        opened.picture(0)
    with pytest.raises(DataError, match=rf"has 600 bytes, the index says {len(content):,}"):
        read_shards(root, "train").picture(0)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000000.tar: can't be read \(No such file"):
        read_shards(root, "train").picture(0)
    os.mkfifo(shard)
    with pytest.raises(DataError, match=r"shard-000000.tar: has 0 bytes"):
        read_shards(root, "train").picture(0)
    shard.unlink()
    shard.write_bytes(content[:600] + bytes(100) + content[700:])
    with pytest.raises(DataError, match=r"shard-000000.tar: .*: truncated or corrupt picture"):
        read_shards(root, "train").picture(0)
    with pytest.raises(DataError, match=r"nowhere/train/index.safetensors: no such file \(make shards with"):
        read_shards(str(tmp_path / "nowhere"), "train")
    with pytest.raises(ConfigError, match=r"data.root is missing"):
        read_split("shards", None, "train", None, 0, 0)


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.data.shards.reading._OPEN", 2)
    index = make_shards(tmp_path, shard_size=1)
    assert len(index.shard_sizes) == 21
    dataset = read_shards(str(tmp_path / "shards"), "train")

    def opened() -> int:
        """Shards among this process's open files."""
        links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
        return sum(str(os.readlink(link)).startswith(str(tmp_path)) for link in links if link.is_symlink())

    for k in range(21):
        dataset.picture(k)
        assert 1 <= opened() <= 2
    del dataset
    gc.collect()
    assert opened() == 0


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    return capsys.readouterr().err.split("error: ")[-1]


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_folder(tmp_path / "folder")
    places = ["--root", str(tmp_path / "folder"), "--output", str(tmp_path / "shards")]
    main(["shards", *places])
    text = capsys.readouterr().out
    assert " ".join(text.split("\n")[2].split()).startswith("train 21 3 1 21")
    assert f"verify_shards --root {tmp_path}/shards --split train" in text
    assert "index.safetensors: is there already; replace the shards with --overwrite" in refused(
        capsys, "shards", *places
    )
    main(["verify_shards", "--root", str(tmp_path / "shards")])
    assert "All are as they were written." in capsys.readouterr().out
    small = ["--input_size", "8", "--resize", "null", "--workers", "0", "--split", "train"]
    main(["statistics", "--root", str(tmp_path / "folder"), *small])
    of_folder = capsys.readouterr().out.split("written")[0]
    main(["statistics", "--name", "shards", "--root", str(tmp_path / "shards"), *small])
    assert capsys.readouterr().out == f"{of_folder}written to {tmp_path}/shards/statistics_8.safetensors\n"
    shard = tmp_path / "shards/train/shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    error = refused(capsys, "verify_shards", "--root", str(tmp_path / "shards"))
    assert error.startswith(f"{shard}: is not what the index says (SHA-256)")
    main(["shards", *places, "--overwrite", "--seed", "1"])
    main(["verify_shards", "--root", str(tmp_path / "shards")])
    assert "megabytes 0" in refused(capsys, "shards", *places, "--megabytes", "0")
    assert "nowhere/train: no such folder" in refused(
        capsys, "shards", "--root", str(tmp_path / "nowhere"), "--output", "x"
    )
    (tmp_path / "folder/train/ape/1.x.JPEG").write_bytes(b"")
    assert "1.x.JPEG: is empty" in refused(capsys, "shards", *places, "--overwrite")
    assert "s3://bucket/x: measure a copy" in refused(
        capsys, "statistics", "--name", "shards", "--root", "s3://bucket/x"
    )


def test_overwriting_looks_at_the_pictures_first(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_shards(tmp_path)
    (tmp_path / "shards/train/shard-000000-backup.tar").write_bytes(b"mine")
    (tmp_path / "shards/train/shard-000077.tar").write_bytes(b"of another packing")
    before = by_name(tmp_path / "shards")
    output = ["--output", str(tmp_path / "shards"), "--overwrite"]
    assert "typo/train: no such folder" in refused(capsys, "shards", "--root", str(tmp_path / "typo"), *output)
    picture = tmp_path / "folder/train/cow/1.x.JPEG"
    content = picture.read_bytes()
    picture.write_bytes(b"")
    assert "1.x.JPEG: is empty" in refused(capsys, "shards", "--root", str(tmp_path / "folder"), *output)
    picture.write_bytes(content)
    lock = os.open(tmp_path / "shards/train", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # another command packs there
    assert "another prepare_data.py" in refused(capsys, "shards", "--root", str(tmp_path / "folder"), *output)
    os.close(lock)
    assert by_name(tmp_path / "shards") == before
    main(["shards", "--root", str(tmp_path / "folder"), *output])
    left = sorted(path.name for path in (tmp_path / "shards/train").iterdir())
    assert left == ["index.safetensors", "shard-000000-backup.tar", "shard-000000.tar"]


def test_pictures_that_cannot_be_packed_are_named_before_anything_is_written(tmp_path: Path) -> None:
    make_folder(tmp_path / "folder")
    picture = tmp_path / "folder/train/cow/1.x.JPEG"
    content = picture.read_bytes()
    dataset = read_folder(tmp_path / "folder", "train")
    for size, problem in ((0, "is empty"), (2**27 + 1, "larger than 134,217,728 bytes")):
        with picture.open("wb") as file:
            file.truncate(size)
        with pytest.raises(DataError, match=rf"cow/1.x.JPEG: {problem}: mend or move it"):
            pack(dataset, tmp_path / "folder/train", tmp_path / "shards/train", shard_size=2500, seed=3)
        assert not (tmp_path / "shards").exists()
    picture.write_bytes(content)
    pack(dataset, tmp_path / "folder/train", tmp_path / "shards/train", shard_size=2500, seed=3)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"0123abcd", b"half a li\n1 10 x\n"])
def test_a_list_of_what_is_done_that_cannot_be_read_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    make_shards(tmp_path)
    whole = by_name(tmp_path / "shards")
    (tmp_path / "again/train").mkdir(parents=True)
    (tmp_path / "again/train/.packing").write_bytes(content)
    folder = read_folder(tmp_path / "folder", "train")
    pack(folder, tmp_path / "folder/train", tmp_path / "again/train", shard_size=2500, seed=3)
    assert by_name(tmp_path / "again") == whole


def test_a_line_of_what_is_done_that_was_cut_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while it notes shard 1, after "1": "11 ..." must not come of it."""
    index = make_shards(tmp_path, shard_size=1)
    whole = by_name(tmp_path / "shards")
    progress = tmp_path / "shards/train/.packing"
    folder, source, write = read_folder(tmp_path / "folder", "train"), tmp_path / "folder/train", packing._write_shard

    def stop_at(last: int) -> None:
        def write_some(plan: packing._Plan, shard: int, *rest: object) -> tuple[int, str]:
            if shard == last:
                raise KeyboardInterrupt
            return write(plan, shard, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(packing, "_write_shard", write_some)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, source, tmp_path / "shards/train", shard_size=1, seed=3)

    stop_at(1)
    with progress.open("a") as file:
        file.write("1")
    stop_at(2)
    monkeypatch.setattr(packing, "_write_shard", write)
    assert len(index.shard_sizes) > 11
    assert index.shard_sizes[1] == index.shard_sizes[11]  # so that its size betrays nothing
    pack(folder, source, tmp_path / "shards/train", shard_size=1, seed=3)
    assert by_name(tmp_path / "shards") == whole


def test_memory_is_bounded_by_a_few_pictures(tmp_path: Path) -> None:
    (tmp_path / "folder/train/ape").mkdir(parents=True)
    for number in range(120):
        (tmp_path / f"folder/train/ape/{number}.png").write_bytes(bytes(10**5))
    folder = read_folder(tmp_path / "folder", "train")
    tracemalloc.start()
    index = pack(folder, tmp_path / "folder/train", tmp_path / "shards/train", shard_size=10**9, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert index.shard_sizes.tolist()[0] > 12 * 10**6
    assert len(index.shard_sizes) == 1
    assert peak < 6 * 10**6
