"""The classes of validation pictures, from every form in which they are handed on."""

from pathlib import Path

import pytest
from official_archives import META, NUMBER_OF, development_kit, tar, validation_name

from backbones.data.ground_truth import read_ground_truth
from backbones.errors import DataError

SYNSETS = ["n03888257", "n01440764", "n02102040", "n01440764"]
NAMES = [validation_name(number).removesuffix(".JPEG") for number in range(1, 5)]
TRUTH = dict(zip(NAMES, SYNSETS, strict=True))
PAIRS = list(TRUTH.items())


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{synset}\n" for synset in SYNSETS),
        "\r\n".join(SYNSETS),
        "".join(f"{name}.JPEG {synset}\n" for name, synset in PAIRS),
        "".join(f"{name}\t{synset}\n" for name, synset in reversed(PAIRS)),
        "".join(f"{name}.JPEG,{synset}\n" for name, synset in PAIRS),
        "ImageId,PredictionString\n" + "".join(f"{n},{s} 85 1 499 272 {s} 1 2 3 4 \n" for n, s in reversed(PAIRS)),
        "\ufeff" + "".join(f"{name}.JPEG, {synset} tench, Tinca tinca\n" for name, synset in PAIRS),
    ],
)
def test_lists(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any name"
    path.write_text(text)
    assert read_ground_truth(path) == TRUTH


def test_development_kit(tmp_path: Path) -> None:
    assert read_ground_truth(development_kit(tmp_path / "kit.tar.gz", SYNSETS)) == TRUTH
    numbers = "\n".join(str(NUMBER_OF[synset]) for synset in SYNSETS).encode()
    files = {"data/meta.mat": META, "data/ILSVRC2012_validation_ground_truth.txt": numbers}
    (tmp_path / "kit.tar").write_bytes(tar(files))
    assert read_ground_truth(tmp_path / "kit.tar") == TRUTH


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "is empty"),
        ("ImageId,PredictionString\n", "is empty"),
        ("490\n361\n", "line 1: a number of the development kit, .* give the development kit itself"),
        ("n01440764\n\nn01440764\n", "line 2: '' is not"),
        ("n01440764\nn0144076\n", "line 2: 'n0144076' is not"),
        ("n01440764\n../../etc\n", "line 2: '../../etc' is not"),
        ("ILSVRC2012_val_00000001.JPEG n01440764\nn01440764\n", "line 2: 'n01440764' is not of the form '<picture>"),
        ("ILSVRC2012_val_00000001.JPEG n1\n", "line 1"),
        ("ILSVRC2012_val_00000001 n01440764\nILSVRC2012_val_00000001.JPEG n02102040", "line 2: .* has a line already"),
        ("\0\1\2\xff", "line 1"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "truth.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"truth\.txt.*{named}"):
        read_ground_truth(path)


def kit(tmp_path: Path, numbers: bytes | None, meta: bytes | None) -> Path:
    files = {"data/ILSVRC2012_validation_ground_truth.txt": numbers, "data/meta.mat": meta}
    path = tmp_path / "kit.tar.gz"
    path.write_bytes(tar({name: content for name, content in files.items() if content is not None}, mode="w:gz"))
    return path


@pytest.mark.parametrize(
    ("numbers", "meta", "named"),
    [
        (b"7\n13\n", META, "line 2: no class '13'"),
        (b"7\n0\n", META, "line 2: no class '0'"),
        (b"7\nx\n", META, "line 2: no class 'x'"),
        (b"9" * 10000, META, "line 1: no class '9999"),
        (None, META, "holds no data/ILSVRC2012_validation_ground_truth.txt"),
        (b"7\n", None, "holds no data/meta.mat"),
        (b"7\n", b"junk", "data/meta.mat: not a MATLAB 5 file"),
        (b"7\n", META.replace(b"IM", b"MI"), "data/meta.mat: "),
    ],
)
def test_what_is_wrong_in_a_development_kit_is_named(
    tmp_path: Path, numbers: bytes | None, meta: bytes | None, named: str
) -> None:
    with pytest.raises(DataError, match=rf"kit\.tar\.gz.*{named}"):
        read_ground_truth(kit(tmp_path, numbers, meta))


def test_a_cut_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = development_kit(tmp_path / "kit.tar.gz", SYNSETS)
    whole = path.read_bytes()
    for cut in (3, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"kit\.tar\.gz"):
            read_ground_truth(path)
    with pytest.raises(DataError, match="nowhere: no such file"):
        read_ground_truth(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a file"):
        read_ground_truth(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "kit.tar.gz"
    path.write_bytes(tar({"data/zeros": bytes(2**26)}, mode="w:gz"))
    with pytest.raises(DataError, match="ends within 'data/zeros'"):
        read_ground_truth(path)
