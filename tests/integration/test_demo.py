"""The command `demo`: the whole chain, from no weights at all to the comparison."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from detector_commands import ROOT, record, refusal, snapshot
from PIL import Image

from backbones.errors import UserError
from backbones.weights import load_weights
from detection import demo

KEYS = ["backbone", "pretrained", "parameters", "multiply_adds", "top1_error", "AP", "AP50", "voc07_mAP"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's own configs, but networks, data and runs as small as they can be."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for file in demo.CONFIGS.glob("*.yaml"):
        config = yaml.safe_load(file.read_text())
        config["data"] |= {"train_size": 12, "test_size": 4}
        network = config["model"] if "model" in config else config["backbone"]
        network["options"]["width"] = 4
        config["train"] |= {"steps": 3, "batch_size": 4, "checkpoint_every": 3, "log_every": 1}
        config["device"] = "cpu"
        (folder / file.name).write_text(yaml.safe_dump(config))
    monkeypatch.setattr(demo, "CONFIGS", folder)
    return folder


def check_what_is_left(output: Path) -> None:
    rows = json.loads((output / "summary.json").read_text())
    assert [list(row) for row in rows] == [KEYS] * 3
    assert [(r["backbone"], r["pretrained"]) for r in rows] == [
        *[("vgg16_bn", True), ("resnet18", True), ("resnet18", False)]
    ]
    for row, run in zip(rows, ["detect_vgg", "detect_resnet", "detect_resnet_random"], strict=True):
        results = record(output / run)["results"]
        assert (row["AP"], row["AP50"]) == (results["coco"]["AP"], results["coco"]["AP50"])
        assert row["voc07_mAP"] == results["voc07"]["mAP"]
        assert (output / f"{run}.log").is_file()
    vgg, resnet, random = rows
    assert resnet["top1_error"] == record(output / "classify_resnet")["results"]["center"]["top1_error"]
    assert random["top1_error"] is None
    assert (resnet["parameters"], resnet["multiply_adds"]) == (random["parameters"], random["multiply_adds"])
    assert vgg["parameters"] > resnet["parameters"]
    # The detectors really started where the classifiers ended, but for the random one.
    state, _ = load_weights(output / "classify_resnet")
    pretrained, _ = load_weights(output / "detect_resnet")
    new, metadata = load_weights(output / "detect_resnet_random")
    assert state["conv1.weight"].equal(pretrained["backbone.conv1.weight"])
    assert not state["conv1.weight"].equal(new["backbone.conv1.weight"])
    assert (metadata.detector["norm"], metadata.detector["freeze_stages"]) == ("batch", [])

    table = (output / "table.md").read_text().splitlines()
    assert len(table) == 5
    assert len({line.count("|") for line in table} | {9}) == 1
    assert f"{resnet['parameters']:,}" in table[3]
    assert "pretrained" in table[3]
    assert "random" in table[4]
    with Image.open(output / "detections.png") as sheet:
        assert sheet.format == "PNG"
        sheet.load()
        assert len(sheet.getcolors(1 << 24) or []) > 1000


def test_the_whole_chain(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "demo"
    demo.main(["--output", str(output)])
    check_what_is_left(output)
    assert (output / "table.md").read_text() in capsys.readouterr().out
    before = snapshot(output)
    line = refusal(capsys, demo.main, "--output", str(output))
    assert str(output) in line
    assert "--overwrite" in line
    assert snapshot(output) == before


def job(name: str, code: str, after: str | None = None) -> demo.Job:
    return demo.Job(name, ["-c", code, "--train.steps", "5"], after)


def test_jobs_run_after_those_they_need_and_not_too_many_at_once(tmp_path: Path) -> None:
    log = tmp_path / "order"
    code = "import sys, time; print('+NAME', file=f); time.sleep(0.2); print('-NAME', file=f)"
    code = f"f = open({str(log)!r}, 'a', buffering=1); {code}"
    needs = {"a": None, "b": "d", "c": "b", "d": None, "e": None}
    jobs = [job(name, code.replace("NAME", name), after) for name, after in needs.items()]
    demo.run_jobs(jobs, tmp_path, at_once=2)
    events = log.read_text().split()
    assert sorted(events) == sorted(f"{sign}{name}" for sign in "+-" for name in needs)
    running = 0
    for event in events:
        running += 1 if event[0] == "+" else -1
        assert running <= 2
    for name, after in needs.items():
        assert after is None or events.index(f"-{after}") < events.index(f"+{name}")


def test_a_failing_job_ends_the_others(tmp_path: Path) -> None:
    slow = job("slow", "import time; time.sleep(600)")
    bad = job("bad", "import sys; print('step 1'); print('error: no more cheese'); sys.exit(3)")
    with pytest.raises(UserError, match=r"^bad failed: error: no more cheese .*bad\.log") as error:
        demo.run_jobs([slow, bad, job("later", "raise SystemExit", after="bad")], tmp_path, at_once=2)
    assert len(str(error.value).splitlines()) == 1
    assert slow.process is not None
    assert slow.process.wait(10) != 0
    assert not (tmp_path / "later.log").exists()
    with pytest.raises(UserError, match="silent failed: it printed nothing"):
        demo.run_jobs([job("silent", "raise SystemExit(1)")], tmp_path)


def test_a_number_that_does_not_exist_is_a_dash() -> None:
    row = dict.fromkeys(KEYS) | {"backbone": "resnet18", "pretrained": False, "parameters": 1234, "multiply_adds": 5e6}
    assert demo.format_rows([row]).splitlines()[2].split("|")[3:-1] == [
        *["      1,234 ", "         5.0 M ", "             - ", "    - ", "      - ", "           - "]
    ]


@pytest.mark.slow
def test_the_demo_as_it_is_but_shorter(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/demo.py"), "--output", str(tmp_path / "demo"), "--scale", "0.01"]
    subprocess.run(command, check=True, capture_output=True)
    check_what_is_left(tmp_path / "demo")
