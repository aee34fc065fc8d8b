"""The demo from end to end, each training shortened to a few steps (`make demo` runs it whole)."""

import json
from pathlib import Path

import pytest
from PIL import Image

from backbones.errors import UserError
from detection.demo import Job, format_rows, main, run_jobs

KEYS = {"backbone", "pretrained", "parameters", "multiply_adds", "top1_error", "AP", "AP50", "voc07_mAP"}


@pytest.mark.slow
def test_the_whole_chain(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "demo"
    main(["--output", str(output), "--scale", "0.01"])
    rows = json.loads((output / "summary.json").read_text())
    assert [(row["backbone"], row["pretrained"]) for row in rows] == [
        ("vgg16_bn", True),
        ("resnet18", True),
        ("resnet18", False),
    ]
    assert all(row.keys() == KEYS for row in rows)
    assert rows[2]["top1_error"] is None
    with Image.open(output / "detections.png") as picture:
        picture.verify()
    table = (output / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert format_rows(rows) in table

    with pytest.raises(SystemExit) as stop:
        main(["--output", str(output)])
    assert stop.value.code == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_job_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    code = "import sys; print('first line'); sys.exit('no more disk')"
    job = Job("classify", ["-c", code, "--train.steps", "5"])
    later = Job("detect", ["-c", "pass", "--train.steps", "5"], after="classify")
    with pytest.raises(UserError, match="classify failed: no more disk") as error:
        run_jobs([job, later], tmp_path)
    assert str(tmp_path / "classify.log") in str(error.value)
    assert (tmp_path / "classify.log").read_text().splitlines() == ["first line", "no more disk"]
    assert later.process is None


def test_jobs_wait_for_what_they_need(tmp_path: Path) -> None:
    touch = "import pathlib, sys, time; time.sleep(0.2); pathlib.Path(sys.argv[1]).touch()"
    first = Job("first", ["-c", touch, str(tmp_path / "made"), "--train.steps", "1"])
    check = f"import pathlib, sys; sys.exit(not pathlib.Path({str(tmp_path / 'made')!r}).exists())"
    second = Job("second", ["-c", check, "--train.steps", "1"], after="first")
    run_jobs([second, first], tmp_path, at_once=2)
    assert first.done
    assert second.done
