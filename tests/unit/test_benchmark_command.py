"""The benchmark's command: its part cifar on a tiny setting, all parts at once, and what it refuses. No test times."""

import json
import pickle
import runpy
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from backbones.benchmark import cifar_part
from backbones.benchmark.limits import probe_limits
from backbones.benchmark.our_cifar import VARIANTS
from backbones.errors import DataError
from detection.benchmark import command
from detection.benchmark.command import main

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a run of a second or two."""
    monkeypatch.setattr(cifar_part, "PICTURES", 128)
    monkeypatch.setattr(command, "probe_limits", partial(probe_limits, side=32, megabytes=1))
    plan = ["--rounds", "2", "--steps", "1", "--discard", "0", "--cifar.batch_size", "4", "--threads", "1"]
    return ["cifar", "--device", "cpu", "--cifar.nets", "[cifar_resnet8]", *plan]


@pytest.fixture
def cifar_root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        batch = {
            b"data": rng.integers(256, size=(4, 3072), dtype=np.uint8),
            b"labels": rng.integers(10, size=4).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(batch))
    return folder.parent


def test_the_command(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    output = tmp_path / "new" / "benchmark.json"
    main([*tiny, "--cifar.variants", "[fp32, bf16, fp32-captured]", "--output", str(output)])
    assert torch.get_num_threads() == threads
    found = json.loads(output.read_text())
    assert [(row["part"], row["name"]) for row in found["rows"]] == [
        ("cifar", "cifar_resnet8 fp32"),
        ("cifar", "cifar_resnet8 bf16"),
    ]
    for row in found["rows"]:
        low, high = row["ratio_quartiles"]
        assert 0 < low <= row["ratio"] <= high
        assert row["unit"] == "images/s"
        assert row["step_seconds"] == pytest.approx(4 / row["ours"])
        assert row["share_of_limit"] == pytest.approx(row["floor_seconds"] / row["step_seconds"])
        assert {"ours_memory", "reference_memory", "ours_quartiles", "reference_quartiles"} <= set(row)
    assert found["rows"][0]["reference"] == found["rows"][1]["reference"]  # the same segments
    assert {"hardware", "versions", "git_commit", "threads", "limits", "cifar_plan", "predictions"} <= set(found)
    assert (found["threads"], found["cifar_plan"]) == (1, {"rounds": 2, "steps": 1, "discard": 0})
    assert "fp32-captured: left out: CUDA graphs need a GPU" in found["messages"][0]
    text = capsys.readouterr().out
    assert "64,000 iterations take" in text
    assert "Predicted, not measured" in text
    assert found["messages"][0] in text


def test_what_is_measured_stays_when_a_later_part_fails(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("coco.json: gone")

    monkeypatch.setitem(command.PARTS, "coco", replace(command.PARTS["coco"], run=fail))
    output = tmp_path / "benchmark.json"
    with pytest.raises(SystemExit) as left:
        main(["cifar", "coco", *tiny[1:], "--cifar.variants", "[fp32]", "--output", str(output)])
    assert left.value.code == 2
    found = capsys.readouterr()
    assert "coco.json: gone" in found.err
    assert "cifar_resnet8 fp32" in found.out
    assert [row["name"] for row in json.loads(output.read_text())["rows"]] == ["cifar_resnet8 fp32"]


def test_both_ways_learn_from_real_files(
    tiny: list[str], cifar_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "benchmark.json"
    main(
        [
            *tiny,
            "--cifar.variants",
            "[fp32]",
            "--cifar.root",
            str(cifar_root),
            "--cifar.curve",
            "4",
            "--seed",
            "3",
            "--output",
            str(output),
        ]
    )
    curves = json.loads(output.read_text())["error_curves"]
    assert (curves["name"], curves["seed"], curves["steps"]) == ("cifar_resnet8", 3, [1, 2, 3, 4])
    for errors in (curves["ours"], curves["reference"]):
        assert all(error in (0, 25, 50, 75, 100) for error in errors)
    assert "both of seed 3" in capsys.readouterr().out


def test_compiled_by_default_is_the_first_network_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_part, "why_not_compiled", lambda device: None)
    choose = partial(cifar_part.choose_variants, device=CPU)

    def names(every: bool, first: bool) -> list[str]:
        return [v.name for v in choose(cifar_part.CifarOptions(compile_all=every), first=first, messages=[])]

    four = ["fp32", "fp32-compiled", "bf16", "bf16-compiled"]
    assert names(every=False, first=True) == names(every=True, first=False) == four
    assert names(every=False, first=False) == ["fp32", "bf16"]
    monkeypatch.setattr(cifar_part, "why_not_compiled", lambda device: "no compiler")
    messages: list[str] = []
    assert len(choose(cifar_part.CifarOptions(), first=True, messages=messages)) == 2
    assert messages == ["fp32-compiled: left out: no compiler", "bf16-compiled: left out: no compiler"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "parts"),
        ("trains", "trains"),
        ("cifar --cifar.nets [resnet50]", "nets: resnet50 is no network for CIFAR-10"),
        ("cifar --cifar.nets [cifar_resnet9]", "6n+2"),
        ("cifar --cifar.nets [cifar_resnet8,cifar_resnet8]", "name each once"),
        ("cifar --cifar.nets []", "nets: name one or more"),
        ("cifar --cifar.variants [fast]", "fast"),
        ("cifar --cifar.variants [fp32-captured] --device cpu", "variants: none of them runs here"),
        ("cifar --cifar.jobs [0]", "jobs [0]"),
        ("cifar --cifar.curve 10", "curve: needs real pictures"),
        ("cifar --cifar.curve -1", "curve -1"),
        ("cifar --cifar.batch_size 1", "batch_size 1"),
        ("cifar --cifar.batch_size 129", "batch_size 129"),
        ("cifar --rounds 0", "rounds 0"),
        ("cifar --steps 0", "steps 0"),
        ("cifar --discard -1", "discard -1"),
        ("cifar --threads 0", "threads 0"),
        ("cifar --cifar.root /nowhere --device cpu", "/nowhere"),
        ("cifar --output /", "/: is a folder"),
    ],
)
def test_errors_are_one_line(arguments: str, message: str, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.slow
def test_all_parts_in_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rows of every part, each with the share of a limit; those beside the tensor path are called so."""
    monkeypatch.setattr(command, "probe_limits", partial(probe_limits, side=32, megabytes=1))
    monkeypatch.setattr(cifar_part, "PICTURES", 128)
    output = tmp_path / "benchmark.json"
    options = {
        "rounds": 2,
        "steps": 1,
        "discard": 0,
        "threads": 1,
        "device": "cpu",
        "seed": 2,
        "input.pictures": 4,
        "input.batch_size": 4,
        "train.nets": "[resnet18]",
        "train.precisions": "[fp32]",
        "train.batch_size": 2,
        "train.input_size": 32,
        "cifar.nets": "[cifar_resnet8]",
        "cifar.variants": "[fp32]",
        "cifar.batch_size": 4,
        "detector.height": 64,
        "detector.width": 96,
        "detector.precisions": "[fp32]",
        "detector.post_nms_train": 20,
        "detector.post_nms_test": 4,
        "detector.rois_per_image": 4,
        "coco.pictures": 5,
        "output": output,
    }
    main(["input", "train", "cifar", "detector", "coco", *(f"--{key}={value}" for key, value in options.items())])
    found = json.loads(output.read_text())
    rows = found["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == ["input", "train", "cifar", "detector", "coco"]
    assert all(row["share_of_limit"] > 0 for row in rows)
    assert sum("tensor" in row["name"] for row in rows) == 4
    assert {found[f"{part}_options"]["seed"] for part in ("input", "train", "cifar", "detector", "coco")} == {2}


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as exit_:
        main(["cifar"])
    assert exit_.value.code == 2
    assert "without torchrun" in capsys.readouterr().err


def test_every_variant_can_be_named() -> None:
    assert set(VARIANTS) == set(get_args(cifar_part.VariantName))


def test_the_tool_and_its_script() -> None:
    assert runpy.run_path(str(ROOT / "tools" / "benchmark.py"))["main"] is main
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["resnet-benchmark"] == "detection.benchmark.command:main"
