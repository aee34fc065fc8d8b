"""Names that are odd but right: commands take them, and of those in data a terminal sees nothing that it would obey.

A path that the user gives is printed as it was given.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bad_detections import ANNOTATIONS, DETECTION
from commands import ROOT, pretrain
from detector_commands import train, write_backbone
from PIL import Image

from backbones.analysis.plot_curves import main as plot_main
from backbones.check import check_folders
from backbones.evaluate import main as evaluate_main
from backbones.text import printable
from detection.detect import main as detect_main
from detection.score import main as score_main

NAMES = {
    "spaces": " a  b ",
    "a line break": "a\nb",
    "a dash in front": "-rf",
    "a terminal's codes": "\x1b[31mred\x07",
    "unicode": "caf\u00e9 \u65e5\u672c \U0001f600",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "quotes and a dollar": "'\"$HOME`",
    "230 letters": "y" * 230,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared")
    pretrain(root / "run", "--train.steps", "2")
    write_backbone(root / "backbone.safetensors", width=4)
    train(root / "detector", root / "backbone.safetensors", "--train.steps", "1")
    return root


def shown(capsys: pytest.CaptureFixture) -> str:
    """What was printed, if a terminal would obey nothing of it."""
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\x9b"}
    out.encode()
    return out


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_pictures_and_results_of_any_name(
    name: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    picture, output = tmp_path / f"{name}.JPEG", tmp_path / "out" / name
    Image.new("RGB", (40, 36), (9, 200, 9)).save(picture, "JPEG")
    detect_main(["--model", str(shared / "detector"), "--images", str(picture), "--output", str(output)])
    (record,) = json.loads((output / "detections.json").read_text())
    assert record["image"] == str(picture)
    assert (output / record["drawn"]).is_file()
    assert f"written to {output}".encode(errors="backslashreplace").decode() in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_detections_and_scores_of_any_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for part, content in (("truth", ANNOTATIONS), ("found", [DETECTION])):
        (tmp_path / part).mkdir()
        (tmp_path / part / f"{name}.json").write_text(json.dumps(content))
    truth, found, scores = (str(tmp_path / part / f"{name}.json") for part in ("truth", "found", "scores"))
    score_main(["--annotations", truth, "--detections", found, "--metric", "coco", "--output", scores])
    assert json.loads(Path(scores).read_text())["coco"]["AP"] == pytest.approx(100)
    assert f"written to {scores}".encode(errors="backslashreplace").decode() in capsys.readouterr().out


@pytest.mark.parametrize("name", [n for n in NAMES.values() if n != NAMES["not UTF-8"]])
def test_a_run_of_any_name_in_utf_8(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / name
    pretrain(run, "--train.steps", "1")
    pretrain(run, "--train.steps", "2", "--resume", "--allow_mismatch")
    evaluate_main(["--model", str(run), "--data.name", "shapes", "--data.test_size", "5", "--workers", "0"])
    plot_main(["--run", str(run), "--output", str(tmp_path / "f.png"), "--labels", f"x{name}"])
    assert f"x{printable(name)}: 2 iterations" in capsys.readouterr().out


def test_weights_whose_name_is_not_utf_8_say_so(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(shared / "run", tmp_path / NAMES["not UTF-8"])
    with pytest.raises(SystemExit) as left:
        evaluate_main(["--model", str(tmp_path / NAMES["not UTF-8"]), "--data.name", "shapes"])
    assert left.value.code == 2
    assert "caf\\udce9/weights.safetensors: safetensors can't open a file whose name is not UTF-8: rename it" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".JPEG", ".Jpg", ".PnG", ".TIFF"])
def test_endings_of_any_case(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    kind = {"j": "JPEG", "p": "PNG", "t": "TIFF"}[ending[1].lower()]
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            Image.new("RGB", (40, 36), (len(split), ord(label), 9)).save(
                tmp_path / "set" / split / label / f"{split}{label}{ending}", kind
            )
    options = ["--data.name", "folder", "--data.root", str(tmp_path / "set"), "--data.augmentation", "pad_crop_flip"]
    pretrain(tmp_path / "run", "--train.steps", "1", *options)
    assert "2 training and 2 test pictures of 2 classes" in shown(capsys)


def test_classes_with_a_terminals_codes_are_printed_escaped(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    truth = ANNOTATIONS | {"categories": [{"id": 3, "name": "\x1b[31mred\n\ud800"}]}
    (tmp_path / "t.json").write_text(json.dumps(truth))
    (tmp_path / "d.json").write_text(json.dumps([DETECTION]))
    files = ["--annotations", str(tmp_path / "t.json"), "--detections", str(tmp_path / "d.json")]
    score_main([*files, "--metric", "voc07"])
    assert "\\x1b[31mred\\n\\ud800" in shown(capsys)


def test_a_check_escapes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "\x1b[31m.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "train" / "a" / "pipe.png")
    with pytest.raises(Exception, match="error"):
        check_folders(str(tmp_path), ["train"], min_side=1, workers=0, output=None)
    assert "\\x1b[31m.png" in shown(capsys)


def test_a_terminal_that_knows_only_ascii(shared: Path, tmp_path: Path) -> None:
    """In a process of its own, since its streams are made at its start."""
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xe6\x97\xa5.png"
    data = io.BytesIO()
    Image.new("RGB", (40, 36)).save(data, "PNG")
    Path(os.fsdecode(name)).write_bytes(data.getvalue())
    command = [sys.executable, ROOT / "tools/detect.py", "--model", shared / "detector", "--images", name]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*command, "--output", name + b".d"], env=environment, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"caf\\udce9 \\u65e5.png.d" in ended.stdout
