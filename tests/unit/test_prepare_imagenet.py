"""`prepare_data.py imagenet` on archives of the official form: what it makes, what it refuses, and after a kill."""

import fcntl
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from official_archives import development_kit, killed_at, picture, tar, training_archive, tree, validation_name

from backbones.data.folder import read_folder
from backbones.data.imagenet import prepare_training
from backbones.errors import DataError
from detection.prepare import main

SYNSETS = ["n01440764", "n02102040", "n03888257"]
CLASSES = {
    synset: {f"{synset}_{10 * k + n}.JPEG": picture(10 * k + n) for n in range(3 + k)}
    for k, synset in enumerate(SYNSETS)
}
SHOWN = [SYNSETS[number % 3] for number in range(5)]  # by the validation pictures
VALIDATION = {validation_name(number): picture(100 + number) for number in range(1, 6)}
EXPECTED = {f"train/{synset}/{name}": data for synset, files in CLASSES.items() for name, data in files.items()} | {
    f"val/{synset}/{name}": data for synset, (name, data) in zip(SHOWN, VALIDATION.items(), strict=True)
}


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A folder with train.tar, val.tar and kit.tar.gz."""
    folder = tmp_path / "archives"
    folder.mkdir()
    training_archive(folder / "train.tar", CLASSES)
    (folder / "val.tar").write_bytes(tar(VALIDATION))
    development_kit(folder / "kit.tar.gz", SHOWN)
    return folder


def arguments(archives: Path, output: Path) -> list[str]:
    train, val, kit = (str(archives / name) for name in ("train.tar", "val.tar", "kit.tar.gz"))
    return ["imagenet", "--train", train, "--val", val, "--ground_truth", kit, "--output", str(output)]


def test_makes_the_class_folders(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(arguments(archives, tmp_path / "out"))
    assert tree(tmp_path / "out") == EXPECTED
    assert read_folder(tmp_path / "out", "val").class_names == SYNSETS
    text = capsys.readouterr().out
    assert re.search(r"train +12 +3 +3-5 .* 12\n", text)
    assert re.search(r"val +5 +3 +1-2 .* 5\n", text)
    assert "train: the official set has 1,281,167 pictures of 1,000 classes" in text
    main(arguments(archives, tmp_path / "out"))
    assert re.search(r"train +12 +3 +3-5 .* 0\n", capsys.readouterr().out)
    assert tree(tmp_path / "out") == EXPECTED


def test_one_split_alone(archives: Path, tmp_path: Path) -> None:
    main(["imagenet", "--train", str(archives / "train.tar"), "--output", str(tmp_path / "a")])
    assert {name.split("/")[0] for name in tree(tmp_path / "a")} == {"train"}
    (tmp_path / "list.txt").write_text("".join(f"{synset}\n" for synset in [*SHOWN, "n01440764"]))
    list_ = str(tmp_path / "list.txt")
    main(["imagenet", "--val", str(archives / "val.tar"), "--ground_truth", list_, "--output", str(tmp_path / "b")])
    assert tree(tmp_path / "a") | tree(tmp_path / "b") == EXPECTED


def test_another_ground_truth_is_not_mixed_in(archives: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    main(arguments(archives, tmp_path / "out"))
    development_kit(archives / "kit.tar.gz", [*SHOWN[1:], SHOWN[0]])
    message = refused(*arguments(archives, tmp_path / "out"))
    assert "the ground truth says n0" in message
    assert f"remove {tmp_path / 'out/val'} and start again" in message
    assert tree(tmp_path / "out") == EXPECTED


def test_what_lies_there_besides_is_said(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "out/train/n01440764"
    folder.mkdir(parents=True)
    (folder / "own.JPEG").write_bytes(picture(0))
    development_kit(archives / "kit.tar.gz", [*SHOWN, "n01440764"])
    main(arguments(archives, tmp_path / "out"))
    text = capsys.readouterr().out
    assert f"train: 1 file(s) are there that the archive does not hold (1 of them in {folder})" in text
    assert "The ground truth speaks of 1 more pictures" in text


@pytest.mark.parametrize("number", [0, 2, 3, 11, 12, 16])
@pytest.mark.parametrize("early", [True, False])
def test_a_killed_run_goes_on(archives: Path, tmp_path: Path, number: int, early: bool) -> None:
    output = tmp_path / "out"
    killed_at(number, early, main, arguments(archives, output))
    left = {name: data for name, data in tree(output).items() if not name.startswith(".")}
    assert len(left) == number + (not early)
    assert left.items() <= EXPECTED.items()
    if number == 3:
        killed_at(4, not early, main, arguments(archives, output))
    main(arguments(archives, output))
    assert tree(output) == EXPECTED


def test_a_file_of_another_size_is_written_anew(archives: Path, tmp_path: Path) -> None:
    main(arguments(archives, tmp_path / "out"))
    some = tmp_path / "out/train/n01440764/n01440764_1.JPEG"
    some.write_bytes(some.read_bytes()[:-1])
    other = tmp_path / "out/val/n01440764/ILSVRC2012_val_00000001.JPEG"
    other.unlink()
    other.symlink_to(some)
    main(arguments(archives, tmp_path / "out"))
    assert tree(tmp_path / "out") == EXPECTED
    assert not other.is_symlink()


def test_two_at_once_are_refused(archives: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "out/train").mkdir(parents=True)
    descriptor = os.open(tmp_path / "out/train", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "out/train: another prepare_data.py is at work there" in refused(*arguments(archives, tmp_path / "out"))
    os.close(descriptor)
    main(arguments(archives, tmp_path / "out"))


@pytest.mark.parametrize("name", ["train.tar", "val.tar"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 1.0])
def test_a_cut_archive_is_named_before_anything_is_written(
    archives: Path, tmp_path: Path, refused: Callable[..., str], name: str, share: float
) -> None:
    whole = (archives / name).read_bytes()
    (archives / name).write_bytes(whole[: int(len(whole.rstrip(b"\0")) * share)])
    assert f"{archives / name}: " in refused(*arguments(archives, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def outer(inner: bytes, name: str = "n01440764.tar") -> bytes:
    return tar({name: inner})


def link(name: str, target: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


def declared(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(5120)


INNER = tar(CLASSES["n01440764"])


@pytest.mark.parametrize(
    ("archive", "named"),
    [
        (tar(VALIDATION), "holds 'ILSVRC2012_val_00000001.JPEG', where .* names like n01440764.tar"),
        (INNER, "holds 'n01440764_0.JPEG'"),
        (outer(INNER, "../n01440764.tar"), "holds '../n01440764.tar'"),
        (outer(INNER, "/tmp/n01440764.tar"), "holds '/tmp/n01440764.tar'"),
        (outer(INNER, "n01440764.tar\n"), "holds "),
        (outer(INNER, "n٠١٢٣٤٥٦٧.tar"), "holds "),
        (link("n01440764.tar", "/etc/passwd"), "'n01440764.tar' is neither a file nor a folder"),
        (declared("n01440764.tar", 2**40), "ends within 'n01440764.tar'"),
        (tar({}), "is empty"),
        (b"\x1f\x8b" + bytes(600), "is not a tar archive"),
        (tar({"n01440764.tar": INNER, "./n01440764.tar": INNER}), "holds n01440764 2 times"),
        (outer(b"junk" * 200), "n01440764.tar: is not a tar archive"),
        (outer(b""), "n01440764.tar: is not a tar archive"),
        (outer(INNER[: len(INNER) // 2]), "n01440764.tar: .*is cut off"),
        (outer(tar({})), "n01440764.tar: holds no pictures"),
        (outer(tar({"../n01440764_1.JPEG": b"x"})), "n01440764.tar: holds '../n01440764_1.JPEG'"),
        (outer(tar({"n01440764_1.JPEG/../../../x": b"x"})), "n01440764.tar: holds "),
        (outer(tar({"n02102040_1.JPEG": b"x"})), "n01440764.tar: holds n02102040_1.JPEG, a picture of another class"),
        (outer(tar({"n01440764_1.JPEG": b""})), "n01440764_1.JPEG: a picture can't be of 0 bytes"),
        (outer(link("n01440764_1.JPEG", "/etc/passwd")), "'n01440764_1.JPEG' is neither"),
        (outer(declared("n01440764_1.JPEG", 2**40)), "ends within 'n01440764_1.JPEG'"),
        (outer(tar({"n01440764_1.JPEG": b"x", "./n01440764_1.JPEG": b"x"})), "holds n01440764_1.JPEG twice"),
    ],
)
def test_a_training_archive_that_is_hostile_or_of_another_form(
    tmp_path: Path, refused: Callable[..., str], archive: bytes, named: str
) -> None:
    (tmp_path / "bad.tar").write_bytes(archive)
    output = tmp_path / "here/out"
    message = refused("imagenet", "--train", str(tmp_path / "bad.tar"), "--output", str(output))
    assert re.search(rf"bad\.tar: (n01440764\.tar: )?.*{named}", message), message
    assert set(tree(tmp_path)) <= {"bad.tar", "here/out/train/n01440764/n01440764_1.JPEG"} | {
        f"here/out/train/n01440764/{name}" for name in CLASSES["n01440764"]
    }


def test_a_picture_of_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.data.imagenet.LARGEST_PICTURE", 1000)
    archive = training_archive(tmp_path / "a.tar", {"n01440764": {"n01440764_1.JPEG": bytes(1001)}})
    with pytest.raises(DataError, match=r"n01440764_1\.JPEG: a picture can't be of 1,001 bytes"):
        prepare_training(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("archive", "named"),
    [
        (tar({"n01440764.tar": INNER}), "holds 'n01440764.tar', where .* names like ILSVRC2012_val_00000001.JPEG"),
        (tar({"../ILSVRC2012_val_00000001.JPEG": b"x"}), "holds '../ILSVRC"),
        (tar({"ILSVRC2012_val_00000006.JPEG": b"x"}), "ground truth says nothing of 1 of its 1 pictures .*00000006"),
        (link("ILSVRC2012_val_00000001.JPEG", "x"), "neither a file"),
    ],
)
def test_a_validation_archive_that_is_hostile_or_of_another_form(
    archives: Path, tmp_path: Path, refused: Callable[..., str], archive: bytes, named: str
) -> None:
    (archives / "val.tar").write_bytes(archive)
    assert re.search(rf"val\.tar: .*{named}", refused(*arguments(archives, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(archives: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    output = ["--output", str(tmp_path / "out")]
    val = ["--val", str(archives / "val.tar")]
    assert "train and val are missing" in refused("imagenet", *output)
    assert "ground_truth is missing" in refused("imagenet", *val, *output)
    assert "nowhere: no such file" in refused("imagenet", *val, "--ground_truth", str(tmp_path / "nowhere"), *output)
    assert "nowhere: no such file" in refused("imagenet", "--train", str(tmp_path / "nowhere"), *output)
    assert "not a file" in refused("imagenet", "--train", str(tmp_path), *output)
    train = ["--train", str(archives / "train.tar")]
    assert "name their archive with --val" in refused("imagenet", *train, "--ground_truth", "x", *output)
    assert "output" in refused("imagenet", *train)
    (tmp_path / "out").write_text("a file")
    assert re.search(r"out/train: can't be written \(.*\)", refused("imagenet", *train, *output))


def test_a_full_disk_is_named_and_what_is_there_stays(
    archives: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, left = os.replace, [4]

    def rename_or_fail(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", rename_or_fail)
        message = refused(*arguments(archives, tmp_path / "out"))
    assert re.search(r"n02102040_11\.JPEG: can't be written \(No space left on device\)", message)
    assert len(tree(tmp_path / "out")) == 4
    main(arguments(archives, tmp_path / "out"))
    assert tree(tmp_path / "out") == EXPECTED


@pytest.mark.data
def test_archives_made_of_imagenette(data_pack: Callable[[str], Path], tmp_path: Path) -> None:
    root = data_pack("imagenette")
    some = {c.name: sorted(c.iterdir())[:4] for c in sorted((root / "train").iterdir())}
    classes = {c: {f"{c}_{n}.JPEG": p.read_bytes() for n, p in enumerate(paths)} for c, paths in some.items()}
    training_archive(tmp_path / "train.tar", classes)
    shown = [p for n in range(2) for c in sorted((root / "val").iterdir()) for p in [sorted(c.iterdir())[n]]]
    validation = {validation_name(n): p.read_bytes() for n, p in enumerate(shown, 1)}
    (tmp_path / "val.tar").write_bytes(tar(validation))
    development_kit(tmp_path / "kit.tar.gz", [p.parent.name for p in shown])
    main(arguments(tmp_path, tmp_path / "out"))
    # Pictures keep their class, whatever the archive calls them.
    for split in ("train", "val"):
        made = read_folder(tmp_path / "out", split)
        assert made.class_names == sorted(some)
        assert len(made) == {"train": 40, "val": 20}[split]
    for place, original in enumerate(shown, 1):
        assert (
            tmp_path / "out/val" / original.parent.name / validation_name(place)
        ).read_bytes() == original.read_bytes()
