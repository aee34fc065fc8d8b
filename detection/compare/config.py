"""The configuration of `compare_detectors.py`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from backbones.errors import CheckpointError, ConfigError
from backbones.weights import find_weights
from detection.config import DetectionData
from detection.evaluate.coco import COCO_METRICS
from detection.evaluate.evaluate import Metric
from detection.inference.options import InferenceOptions


@dataclass
class RowConfig:
    """One way to find objects.

    Args:
        name: of the row.
        models: which detectors, by their keys in `models`; several are an ensemble.
        inference: what is added at test time.
        paper: the paper's numbers, by column.
        over: the row that gains are counted from; by default the one before.
    """

    name: str
    models: list[str]
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    paper: dict[str, float] = field(default_factory=dict)
    over: str | None = None


@dataclass(kw_only=True)
class ComparisonConfig:
    """Tests detectors in several ways on one test set; puts gain and cost of each beside the others' and the paper's.

    Writes comparison.json and table.md after every row (stopped, the same command goes on), and comparison.png in
    the end. Rows whose models are not given are left out, and what trains these is printed. Of test sets whose objects
    are not published the files for the official server are written, a folder for each row. Example:
    python tools/compare_detectors.py --config configs/tables/table9.yaml --data.root coco --output table9
    --models '{baseline: runs/coco, context: runs/coco-context}'

    Args:
        title: of the table.
        data: the test set; name, root, test_split, bad_boxes and test_size count.
        metric: columns, each a place in a run's results: coco.AP, coco.AP50, voc07.mAP, voc12.mAP, det.mAP.
        rows: the ways.
        models: run folders or weights files, by key.
        train: the command that trains each model, by key.
        output: the folder to write. Rows that it holds already, of the same weights and options, are not run again.
        device: auto takes a GPU where there is one.
        precision: fp32 or bf16 (mixed).
        workers: data-loading processes; 0 leaves all cores to what is measured.
        overwrite: replace the rows that the folder holds.
    """

    title: str = "Comparison"
    data: DetectionData = field(default_factory=DetectionData)
    metric: list[str] = field(default_factory=lambda: ["coco.AP50", "coco.AP"])
    rows: list[RowConfig] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    train: dict[str, str] = field(default_factory=dict)
    output: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = 4
    overwrite: bool = False


def families(columns: Sequence[str]) -> list[Metric]:
    """The metrics that columns are from, each once."""
    asked = {column.partition(".")[0] for column in columns}
    return [metric for metric in get_args(Metric) if metric in asked]


def check_comparison(config: ComparisonConfig) -> None:
    """Refuses what can be refused before anything is read.

    Raises:
        ConfigError: names the key, row or column.
    """
    if not config.rows:
        raise ConfigError("rows is missing: name a --config with rows, as configs/tables/table9.yaml")
    if not config.data.test_split:
        raise ConfigError("data.test_split is missing: name the split to test on")
    if config.workers < 0:
        raise ConfigError(f"workers {config.workers}: give 0 or more")
    known = {f"{metric}.{n}" for metric in get_args(Metric) for n in (COCO_METRICS if metric == "coco" else ["mAP"])}
    for column in config.metric:
        if column not in known:
            raise ConfigError(f"metric {column}: there is no such number; there are {', '.join(sorted(known))}")
    if not config.metric:
        raise ConfigError("metric is missing: name one or more, as coco.AP50")
    for number, row in enumerate(config.rows):
        _check_row(row, [earlier.name for earlier in config.rows[:number]], config)
    used = {key for row in config.rows for key in row.models}
    for key in config.models:
        if key not in used:
            raise ConfigError(f"models.{key}: no row uses it; the rows use {', '.join(sorted(used))}")


def _check_row(row: RowConfig, earlier: Sequence[str], config: ComparisonConfig) -> None:
    if row.name in earlier:
        raise ConfigError(f"rows: there are two of the name {row.name!r}: rename one")
    if not row.models:
        raise ConfigError(f"row {row.name!r}: its models are missing: name one or more")
    for key in row.models:
        if key not in config.models and key not in config.train:
            raise ConfigError(f"row {row.name!r}: its model {key!r} is neither among models nor in train")
    for column in row.paper:
        if column not in config.metric:
            raise ConfigError(
                f"row {row.name!r}: paper.{column} is no column of the table ({', '.join(config.metric)})"
            )
    if row.over is not None and row.over not in earlier:
        raise ConfigError(f"row {row.name!r}: over {row.over!r} is no earlier row")


def check_models(config: ComparisonConfig) -> dict[str, str]:
    """The digests of the models that are given.

    Raises:
        ConfigError: none is given.
        CheckpointError: one is not there. Both name what trains it.
    """
    if not config.models:
        first = config.rows[0].models[0]
        raise ConfigError(f"models is missing: name runs as '{{{first}: RUN}}'{how_to_train(config, first)}")
    digests = {}
    for key, path in config.models.items():
        try:
            digests[key] = _digest(path)
        except CheckpointError as error:
            raise CheckpointError(f"models.{key} {error}{how_to_train(config, key)}") from error
    return digests


def how_to_train(config: ComparisonConfig, key: str) -> str:
    """The command that trains a model, where the configuration knows it."""
    return f"; it is trained by: {config.train[key]}" if key in config.train else ""


def _digest(path: str) -> str:
    """The SHA-256 of a run's weights file, or of that file itself."""
    with find_weights(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
