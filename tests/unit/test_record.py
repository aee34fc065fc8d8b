"""Recorded runs: small, whole, and only of finished runs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.record import main, thin_out


@given(st.lists(st.sampled_from(["train", "test"]), max_size=60), st.integers(1, 20))
def test_a_curve_keeps_its_order_its_ends_and_its_test_points(splits, most):
    lines = [{"step": i, "split": split} for i, split in enumerate(splits)]
    kept = thin_out(lines, most)
    assert len(kept) <= most
    assert kept == [line for line in lines if line in kept]
    tests = [line for line in lines if line["split"] == "test"]
    assert [line for line in kept if line["split"] == "test"] == tests[-most:]
    if len(lines) <= most:
        assert kept == lines


def write_run(folder, status):
    folder.mkdir()
    record = {
        "status": status,
        "command": "pretrain.py --config configs/x/net.yaml --output o",
        "seed": 3,
        "results": {"a": 1},
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2.5}\n')


def test_a_finished_run_is_recorded_under_its_config_and_seed(tmp_path):
    write_run(tmp_path / "run", "finished")
    main([str(tmp_path / "run"), "--output", str(tmp_path / "results")])
    record = json.loads((tmp_path / "results" / "net-seed3.json").read_text())
    assert record["curve"] == [{"step": 1, "split": "train", "loss": 2.5}]
    assert record["results"] == {"a": 1}


@pytest.mark.parametrize("status", ["running", "failed", None])
def test_other_runs_are_refused(tmp_path, capsys, status):
    if status:
        write_run(tmp_path / "run", status)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "run"), "--output", str(tmp_path / "results")])
    assert stop.value.code == 2
    assert str(tmp_path / "run") in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
