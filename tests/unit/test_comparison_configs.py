"""The configs of `compare_detectors`: the numbers of Tables 9 to 12, and models that the configs of training make."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from backbones.cli import run_command
from detection.compare.config import ComparisonConfig, check_comparison
from detection.config import DetectorConfig

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "configs/tables").glob("*.yaml")), ROOT / "configs/bccd/ablation.yaml"]
# Percent: AP50 and AP, or mAP.
PAPER = {
    "table9": [(41.5, 21.2), (48.4, 27.2), (49.9, 29.9), (51.1, 30.0), (53.8, 32.5)],
    "table9_test": [(53.3, 32.2), (55.7, 34.9), (59.0, 37.4)],
    "table10": [(73.2,), (76.4,), (85.6,)],
    "table11": [(70.4,), (73.8,), (83.8,)],
    "table12": [(60.5,), (63.6,)],
    "ablation": [()] * 9,
}
PYRAMID = [200, 400, 600, 800, 1000]


def read(file: Path) -> ComparisonConfig:
    """The resolved configuration that the command would run with."""
    configs: list[ComparisonConfig] = []
    run_command(ComparisonConfig, configs.append, argv=["--config", str(file)])
    return configs[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_papers_numbers(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    assert [tuple(row.get("paper", {}).values()) for row in config["rows"]] == PAPER[file.stem]
    for row in config["rows"]:
        assert list(row.get("paper", config["metric"])) == config["metric"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_command_reads_it(file: Path) -> None:
    config = read(file)
    check_comparison(config)
    assert config.models == {}
    assert config.output is None
    assert {key for row in config.rows for key in row.models} == config.train.keys()


def options_of(command: str) -> dict[str, str]:
    words = command.split()
    return {word: value for word, value in pairwise(words) if word.startswith("--")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_commands_that_train_its_models(file: Path) -> None:
    """Each names a config that is there; baseline+++ goes on from a detector; no two write to one folder."""
    config = read(file)
    outputs = [options_of(command)["--output"] for command in config.train.values()]
    assert len(outputs) == len(set(outputs))
    context = {}
    for key, command in config.train.items():
        options = options_of(command)
        assert set(options) <= {"--nproc-per-node", "--config", "--backbone.weights", "--weights", "--data.root"} | {
            *("--output", "--seed")
        }  # what makes a model is in its config
        trained: list[Any] = []
        run_command(DetectorConfig, trained.append, argv=["--config", str(ROOT / options["--config"])])
        context[key] = trained[0].roi.context
        assert ("--weights" in options) == ("_plus_" in options["--config"])
        assert ("--backbone.weights" in options) != ("--weights" in options)
        assert trained[0].data.name == config.data.name
    for row in config.rows:
        if "context" in row.name or "+++" in row.name or "scale" in row.name:
            assert all(context[key] for key in row.models), row.name


def test_steps_of_appendix_b() -> None:
    rows = {row.name: row for row in read(ROOT / "configs/tables/table9.yaml").rows}
    vgg, plain, refined, context, scales = rows.values()
    assert vgg.models != plain.models == refined.models != context.models == scales.models
    assert [row.inference.refine for row in rows.values()] == [False, False, True, True, True]
    assert [row.inference.scales for row in rows.values()] == [[], [], [], [], PYRAMID]
    ensemble = read(ROOT / "configs/tables/table9_test.yaml").rows[-1]
    assert len(ensemble.models) == 3
    assert ensemble.inference == scales.inference


def test_table12_is_scored_here() -> None:
    """On val2, whose objects are published, by detectors that were trained without it."""
    config = read(ROOT / "configs/tables/table12.yaml")
    assert (config.data.test_split, config.data.bad_boxes, config.metric) == ("val2", "repair", ["det.mAP"])


def test_the_ablations_pyramid_is_the_papers_for_pictures_of_half_the_size() -> None:
    rows = read(ROOT / "configs/bccd/ablation.yaml").rows
    merges = {row.inference.merge for row in rows if row.inference.scales}
    assert merges == {"pooled", "features", "scores"}
    for row in rows:
        if row.inference.scales:
            assert [2 * scale for scale in row.inference.scales] == PYRAMID
            assert 2 * row.inference.region_side == 224
