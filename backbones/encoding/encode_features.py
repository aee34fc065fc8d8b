"""The command `encode_features`: residual encodings of a network's patches beside plain ones (2.1)."""

import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from backbones.analysis.figures import save_figure
from backbones.cli import run_command
from backbones.encoding.comparison import Comparison, Row
from backbones.encoding.encodings import ENCODINGS
from backbones.encoding.linear import check_labels
from backbones.encoding.options import EncodingOptions, check_options
from backbones.encoding.quantisation import Distortion
from backbones.encoding.reading import choose_pictures, read_features
from backbones.encoding.report import draw_rows, format_distortions, format_rows
from backbones.encoding.retrieval import asking
from backbones.engine.distributed import join_world
from backbones.engine.machine import describe_hardware, git_commit
from backbones.engine.outputs import write_json
from backbones.errors import ConfigError
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.weights import load_classifier


def encode_features(options: EncodingOptions) -> None:
    """Measures encodings, and prints, draws and writes the results.

    Raises:
        UserError: options, weights or data can't be used.
    """
    record, started = _provenance(), time.monotonic()
    check_options(options)
    network, metadata = load_classifier(options.model)
    stage = _choose_stage(network, options.stage)
    options = replace(options, stage=stage)
    train, test = choose_pictures(options.data, metadata, options.train_pictures, options.test_pictures)
    check_labels(train.labels)
    asking(test.labels)

    with join_world(options.device) as world:
        splits = read_features(network.to(world.device), metadata, [train, test], stage, options, world.device)
    comparison = Comparison(splits[0], splits[1], list(dict.fromkeys(options.normalisations)))
    rows, distortions = _measure(comparison, options)

    patches = splits[0].features.patches.shape[1]
    print(f"{patches} patches of {stage} in a picture, {options.dimensions} dimensions; {len(train.labels)} training "
          f"and {len(test.labels)} test pictures")  # fmt: skip
    print(format_rows(rows))
    if distortions:
        print(format_distortions(distortions))
    if options.output:
        facts = {
            "options": asdict(options),
            "data_fingerprints": {"train": train.dataset.fingerprint(), "test": test.dataset.fingerprint()},
            "pictures": {"train": len(train.labels), "test": len(test.labels)},
            "patches": patches,
            "wall_clock_seconds": round(time.monotonic() - started, 1),
        }
        results = {"rows": [asdict(row) for row in rows], "quantisation": [asdict(each) for each in distortions]}
        write_json(Path(options.output), record | facts | results)
    if options.figure:
        title = f"{metadata.architecture} ({Path(options.model).name}), {stage}"
        save_figure(draw_rows(rows, title), Path(options.figure))
    if written := [path for path in (options.output, options.figure) if path]:
        print(f"written: {', '.join(written)}")


def _choose_stage(network: StagedNetwork, stage: str | None) -> str:
    """The stage named, the last but one by default.

    Raises:
        ConfigError: the network has no such stage.
    """
    known = list(network.stages())
    if stage is not None and stage not in known:
        raise ConfigError(f"stage: no stage {stage!r}: the network has {', '.join(known)}")
    return stage or known[-2]


def _measure(comparison: Comparison, options: EncodingOptions) -> tuple[list[Row], list[Distortion]]:
    """All rows, with the numbers of the last one beside the bar, and what quantisation loses if that is asked."""
    names, centres = list(dict.fromkeys(options.encodings or ENCODINGS)), sorted(set(options.centres))
    sample, seeds = options.sample, range(options.seed, options.seed + options.code_books)
    rows: list[Row] = []
    parts = [comparison.pooled(), *(comparison.encoded(names, k, sample, seed) for k in centres for seed in seeds)]
    total = 2 + len(names) * len(centres) * len(seeds)
    with progress_bar(total=total, unit="encoding", description="encodings") as bar:
        for same in chain.from_iterable(parts):
            rows += same
            bar.set_postfix_str(f"{same[-1].encoding}: mAP {same[-1].retrieval_mAP:.1f} %", refresh=False)
            bar.update()
    return rows, [comparison.quantised(sample, seed) for seed in seeds] if options.quantise else []


def _provenance() -> dict[str, Any]:
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "pillow")}
    return {
        "command": shlex.join(sys.argv),
        "hardware": describe_hardware(),
        "versions": versions | {"python": platform.python_version()},
        "git_commit": git_commit(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command `encode_features`."""
    run_command(EncodingOptions, encode_features, argv=argv)
