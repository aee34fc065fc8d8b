"""The command `encode_features`: residual encodings of a network's patches beside plain ones (2.1)."""

import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from backbones.analysis.figures import check_figure, save_figure
from backbones.cli import run_command
from backbones.config import ClassificationData
from backbones.encoding.comparison import Comparison, Row
from backbones.encoding.encodings import ENCODINGS, EncodingName
from backbones.encoding.linear import check_labels
from backbones.encoding.normalisation import Normalisation
from backbones.encoding.quantisation import check_quantisation
from backbones.encoding.reading import PatchOptions, choose_pictures, read_features
from backbones.encoding.report import draw_rows, format_distortions, format_rows
from backbones.encoding.retrieval import asking
from backbones.encoding.whitening import Origin
from backbones.engine.distributed import join_world
from backbones.engine.run import check_writable, describe_hardware, git_commit, write_json
from backbones.errors import ConfigError
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.weights import load_classifier


def encode_features(
    model: str,
    data: ClassificationData,
    stage: str | None = None,
    centres: list[int] = [64],  # noqa: B006 (read by the command line, never changed)
    dimensions: int = 64,
    encodings: list[EncodingName] = [],  # noqa: B006
    normalisations: list[Normalisation] = ["power"],  # noqa: B006
    origin: Origin = "mean",
    code_books: int = 1,
    quantise: bool = False,
    train_pictures: int = 10_000,
    test_pictures: int = 5_000,
    sample: int = 20_000,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 4,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    output: str | None = None,
    figure: str | None = None,
) -> None:
    """Compares encodings of residual vectors with those of the vectors themselves, on a classifier's patches (2.1).

    Patches are the vectors of one stage's feature map, of unit length and then whitened. VLAD and Fisher vectors sum
    up their residuals to the centres of a code book; each has a plain counterpart with the same code book, which sums
    up the vectors. Beside them: histograms of the centres, the feature pooled over the last stage (pooled) and over
    this one (average). Retrieval: each test picture asks for the others of its class. Example:
    python tools/encode_features.py --model runs/resnet50 --data.root imagenet --output encodings.json

    Args:
        model: a run folder or a weights.safetensors file.
        data: the pictures; only name, root, splits and the sizes of drawn splits count.
        stage: whose patches; the last but one by default.
        centres: sizes of code books.
        dimensions: of a whitened patch.
        encodings: all by default.
        normalisations: of encodings: l2 (unit length), power (signed square roots before that), intra (each centre's
            part brought to unit length before that; of one part or of single numbers it is l2, and left out beside it).
        origin: of whitened vectors, their mean or the network's own zero; residuals do not depend on it.
        code_books: how many of each size, from other seeds; the table has their mean and standard deviation.
        quantise: also measure what of the patches' variance product quantisation loses, of residuals and of the vectors
            themselves, in codes of 64 bits (Jégou et al., 2011).
        train_pictures: how many to learn from, spread over the training split.
        test_pictures: how many to retrieve and classify, spread over the test split.
        sample: patches that whitening and code books are fitted to.
        seed: of samples and of the first code book.
        batch_size: pictures at a time.
        workers: data-loading processes.
        device: where the network runs; auto takes a GPU where there is one.
        output: a JSON file for all numbers.
        figure: retrieval mAP as bars, residual beside plain (.png, .svg, .pdf).
    """
    record: dict[str, Any] = _provenance() | {"options": {**locals(), "data": asdict(data)}}
    started = time.monotonic()
    _check_numbers(
        centres=min(centres, default=0), dimensions=dimensions, code_books=code_books, train_pictures=train_pictures,
        test_pictures=test_pictures, sample=sample, batch_size=batch_size, normalisations=len(normalisations),
    )  # fmt: skip
    if workers < 0:
        raise ConfigError(f"workers {workers}: give 0 or more")
    if not 0 <= seed <= 2**32 - code_books:
        raise ConfigError(f"seed {seed}: give 0 to {2**32 - code_books}")
    if max(centres) > sample:
        raise ConfigError(f"centres {max(centres)}: more than the patches they are fitted to (sample {sample})")
    if quantise:
        check_quantisation(dimensions, sample)
    if output:
        check_writable(Path(output))
    figure_path = check_figure(figure) if figure else None
    network, metadata = load_classifier(model)
    record["options"]["stage"] = stage = _choose_stage(network, stage)
    train, test = choose_pictures(data, metadata, train_pictures, test_pictures)
    check_labels(train.labels)
    asking(test.labels)

    patch_options = PatchOptions(stage, dimensions, origin, sample, seed, batch_size, workers)
    with join_world(device) as world:
        splits = read_features(network.to(world.device), metadata, [train, test], patch_options, world.device)
    comparison = Comparison(splits[0], splits[1], list(dict.fromkeys(normalisations)))
    names, seeds = list(dict.fromkeys(encodings or ENCODINGS)), range(seed, seed + code_books)
    rows = _compare(comparison, names, sorted(set(centres)), sample, seeds)
    distortions = [comparison.quantised(sample, seed) for seed in seeds] if quantise else []

    pictures = {"train": len(train.labels), "test": len(test.labels)}
    of_each = splits[0].features.patches.shape[1]
    print(f"{of_each} patches of {stage} in a picture, {dimensions} dimensions; {pictures['train']} training and "
          f"{pictures['test']} test pictures")  # fmt: skip
    print(format_rows(rows))
    if distortions:
        print(format_distortions(distortions))
    if output:
        record["data_fingerprints"] = {"train": train.dataset.fingerprint(), "test": test.dataset.fingerprint()}
        record |= {"pictures": pictures, "patches": of_each, "wall_clock_seconds": round(time.monotonic() - started, 1)}
        results = {"rows": [asdict(row) for row in rows], "quantisation": [asdict(each) for each in distortions]}
        write_json(Path(output), record | results)
    if figure_path:
        save_figure(draw_rows(rows, f"{metadata.architecture} ({Path(model).name}), {stage}"), figure_path)
        print(f"figure: {figure_path}")


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name} {number}: give 1 or more")


def _choose_stage(network: StagedNetwork, stage: str | None) -> str:
    """The stage named, the last but one by default.

    Raises:
        ConfigError: the network has no such stage.
    """
    known = list(network.stages())
    if stage is not None and stage not in known:
        raise ConfigError(f"stage: no stage {stage!r}: the network has {', '.join(known)}")
    return stage or known[-2]


def _compare(
    comparison: Comparison, names: Sequence[EncodingName], centres: Sequence[int], sample: int, seeds: Sequence[int]
) -> list[Row]:
    """All rows, with the numbers of the last one beside the bar."""
    rows: list[Row] = []
    parts = [comparison.pooled(), *(comparison.encoded(names, k, sample, seed) for k in centres for seed in seeds)]
    total = 2 + len(names) * len(centres) * len(seeds)
    with progress_bar(total=total, unit="encoding", description="encodings") as bar:
        for same in chain.from_iterable(parts):
            rows += same
            bar.set_postfix_str(f"{same[-1].encoding}: mAP {same[-1].retrieval_mAP:.1f} %", refresh=False)
            bar.update()
    return rows


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
    run_command(encode_features, argv=argv)
