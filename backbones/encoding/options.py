"""Options of the command `encode_features`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backbones.analysis.figures import check_figure
from backbones.config import ClassificationData
from backbones.encoding.encodings import EncodingName
from backbones.encoding.normalisation import Normalisation
from backbones.encoding.quantisation import check_quantisation
from backbones.encoding.whitening import Origin
from backbones.engine.outputs import check_writable
from backbones.errors import ConfigError


@dataclass(frozen=True)
class EncodingOptions:
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

    model: str
    data: ClassificationData
    stage: str | None = None
    centres: list[int] = field(default_factory=lambda: [64])
    dimensions: int = 64
    encodings: list[EncodingName] = field(default_factory=list)
    normalisations: list[Normalisation] = field(default_factory=lambda: ["power"])
    origin: Origin = "mean"
    code_books: int = 1
    quantise: bool = False
    train_pictures: int = 10_000
    test_pictures: int = 5_000
    sample: int = 20_000
    seed: int = 0
    batch_size: int = 32
    workers: int = 4
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: str | None = None
    figure: str | None = None


def check_options(options: EncodingOptions) -> None:
    """Finds out what is wrong before anything is read.

    Raises:
        UserError: a number is out of range, or an output can't be written.
    """
    numbers = {
        "centres": min(options.centres, default=0),
        "normalisations": len(options.normalisations),
    } | {
        name: getattr(options, name)
        for name in ("dimensions", "code_books", "train_pictures", "test_pictures", "sample", "batch_size")
    }
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name} {number}: give 1 or more")
    if options.workers < 0:
        raise ConfigError(f"workers {options.workers}: give 0 or more")
    largest = 2**32 - options.code_books
    if not 0 <= options.seed <= largest:
        raise ConfigError(f"seed {options.seed}: give 0 to {largest}")
    most = max(options.centres)
    if most > options.sample:
        raise ConfigError(f"centres {most}: more than the patches they are fitted to (sample {options.sample})")
    if options.quantise:
        check_quantisation(options.dimensions, options.sample)
    if options.output:
        check_writable(Path(options.output))
    if options.figure:
        check_figure(options.figure)
