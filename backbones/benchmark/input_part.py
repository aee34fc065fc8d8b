"""The part `input` of the benchmark: training pictures from JPEG files, beside torchvision's two ways and the limit."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from backbones.benchmark.decoding import decode, needed_parts
from backbones.benchmark.drawn_files import SPLIT, Files, draw_files, link_files
from backbones.benchmark.feeding import fed_training
from backbones.benchmark.feeds import Crop, our_feed, plain_feed
from backbones.benchmark.limits import Limits
from backbones.benchmark.measure import Plan, interleave, pinned, ratios, spread
from backbones.benchmark.memory import with_peak_memory
from backbones.benchmark.report import PartReport, Row
from backbones.data.folder import read_folder
from backbones.engine.acceleration import usable_cores
from backbones.errors import ConfigError, UserError
from backbones.models import get_model

UNIT = "images/s"
CPU = torch.device("cpu")
DRAWN = [((500, 375), Crop(224, (256, 480))), ((128, 128), Crop(112, (128, 240)))]
REFERENCES = {"pil": "ImageFolder with PIL", "tensor": "tensor path"}
OURS = {"ours": "uint8 batch for the device", "prepared": "normalised on the same core"}


@dataclass(frozen=True)
class InputPartOptions:
    """Loading training pictures from JPEG files with the augmentation of Section 3.4.

    Args:
        root: a folder of class folders whose JPEG files are taken, cropped to 224 pixels; without it pictures of
            500x375 (to 224) and 128x128 (to 112 pixels) are drawn.
        pictures: how many files are drawn of each size, or taken out of `root`, evenly.
        batch_size: pictures of a batch; 32 is what each of eight GPUs sees of the paper's 256.
        workers: loading processes of further rows, beside as many of the usual ways; 0 for none. The other rows are of
            one core, without such processes.
        gpu_decoding: a further row: files decoded on the GPU, where there is one.
        feed: a network that is trained from the files in further rows, bf16, beside the same steps on pictures that are
            there already.
        feed_batch_size: pictures of its steps.
        seed: of pictures, order and crops.
    """

    root: str | None = None
    pictures: int = 256
    batch_size: int = 32
    workers: int = 0
    gpu_decoding: bool = False
    feed: str | None = None
    feed_batch_size: int = 256
    seed: int = 0


def full_options(options: InputPartOptions, device: torch.device) -> InputPartOptions:
    """All cores too; on a GPU decoding there, and a ResNet-50 that is trained from files."""
    gpu = device.type == "cuda"
    return replace(
        options,
        pictures=2048,
        workers=usable_cores(),
        gpu_decoding=gpu,
        feed=options.feed or ("resnet50" if gpu else None),
    )


def check_input(options: InputPartOptions) -> None:
    """Refuses what can be refused before anything is measured.

    Raises:
        ConfigError: names the option.
        DataError: `root` holds no class folders.
    """
    if not 1 <= options.batch_size <= options.pictures <= 100_000:
        raise ConfigError(
            f"input.pictures {options.pictures}, input.batch_size {options.batch_size}: "
            "give at most 100000 pictures, and no more of a batch than there are"
        )
    if not 0 <= options.workers <= usable_cores():
        raise ConfigError(f"input.workers {options.workers}: give 0 to {usable_cores()}, the cores that can be used")
    if options.feed is not None:
        with torch.device("meta"):
            get_model(options.feed)
        if options.feed_batch_size < 2:  # batch norm has no variance of one value
            raise ConfigError(f"input.feed_batch_size {options.feed_batch_size}: give 2 or more")
    if options.root:
        read_folder(Path(options.root).parent, Path(options.root).name)


def benchmark_input(
    options: InputPartOptions, *, plan: Plan, device: torch.device, threads: int, limits: Limits
) -> PartReport:
    """Measures one core with one thread; then all cores, the GPU's decoder and a network, where they are asked for.

    The limit is not that of arithmetic or memory but decoding alone, which is measured here.

    Raises:
        UserError: files that can't be read.
    """
    report = PartReport([])
    for title, crop, size in _kinds(options):
        with _files(options, size) as (root, files):
            title = f"{title} to {crop.size}"
            report.numbers[f"input_files_{len(report.numbers)}"] = {"name": title, **asdict(files)}
            report.texts.append(f"{title}: {files}")
            with pinned(1):  # with loading processes too: they take the other cores
                report.rows.extend(_one_core(title, root, crop, options, plan))
                if options.workers:
                    report.rows.extend(_all_cores(title, root, crop, options, plan, device, report.messages))
            if options.feed:
                report.rows.append(
                    fed_training(
                        f"{options.feed} bf16 from {title}",
                        options.feed,
                        root,
                        crop,
                        plan=plan,
                        batch_size=min(options.feed_batch_size, files.count),
                        workers=options.workers,
                        device=device,
                        seed=options.seed,
                    )
                )
    return report


def _kinds(options: InputPartOptions) -> list[tuple[str, Crop, tuple[int, int] | None]]:
    """Titles, crops, and the size of pictures that must be drawn."""
    if options.root:
        return [(Path(options.root).name, DRAWN[0][1], None)]
    return [(f"{size[0]}x{size[1]}", crop, size) for size, crop in DRAWN]


@contextmanager
def _files(options: InputPartOptions, size: tuple[int, int] | None) -> Iterator[tuple[Path, Files]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if size is not None:
            files = draw_files(root, count=options.pictures, width=size[0], height=size[1], seed=options.seed)
        else:
            files = link_files(Path(str(options.root)), root, count=options.pictures)
            if files.count < options.batch_size:
                raise ConfigError(f"input.root {options.root}: of its files only {files.count} can be used: too few")
        yield root, files


def _one_core(title: str, root: Path, crop: Crop, options: InputPartOptions, plan: Plan) -> list[Row]:
    """A row for either of ours beside either usual way, all in turn with the limit."""
    setting: dict[str, Any] = {"batch_size": options.batch_size, "workers": 0, "device": CPU}
    feeds = {name: our_feed(root, crop, **setting, seed=options.seed, prepared=name == "prepared") for name in OURS} | {
        name: plain_feed(name, root, crop, **setting) for name in REFERENCES
    }
    memory = {}
    for name, feed in feeds.items():
        feed.segment(1, plan.discard)  # warm-up
        _, memory[name] = with_peak_memory(partial(feed.segment, 1, 0), CPU)
    paths = sorted((root / SPLIT).rglob("*.jpg"))
    parts = needed_parts(paths, size=crop.size, scales=crop.scales, seed=options.seed)
    pictures = plan.steps * options.batch_size
    segments = {name: partial(feed.segment, plan.steps, plan.discard) for name, feed in feeds.items()} | {
        "decoding": partial(decode, cycle(paths), pictures),
        "decoding_needed": partial(decode, cycle(parts), pictures),
    }
    rates = interleave(segments, plan.rounds, description=f"input, {title}")
    rows = []
    for name, ours in OURS.items():
        details, note = beside_decoding(rates[name], rates["decoding"], rates["decoding_needed"])
        for number, (other, reference) in enumerate(REFERENCES.items()):
            rows.append(
                Row(
                    "input",
                    f"{title}, {ours} / {reference}",
                    UNIT,
                    rates[name],
                    rates[other],
                    memory[name],
                    memory[other],
                    details,
                    [] if number else [note],
                )
            )
    return rows


def beside_decoding(ours: list[float], whole: list[float], needed: list[float]) -> tuple[dict[str, float], str]:
    """Ours beside the limit, by medians of the rounds: numbers for a row, and a note."""
    details = {
        "decoding_rate": spread(whole).median,
        "decoding_needed_rate": spread(needed).median,
        "share_of_decoding": spread(ratios(ours, whole)).median,
        "share_of_limit": spread(ratios(ours, needed)).median,
    }
    note = (
        f"decoding alone {details['decoding_rate']:,.0f} images/s, only what is needed "
        f"{details['decoding_needed_rate']:,.0f}: {details['share_of_limit']:.0%} of that limit "
        f"({details['share_of_decoding']:.0%} of decoding whole pictures)"
    )
    return details, note


def _all_cores(
    title: str,
    root: Path,
    crop: Crop,
    options: InputPartOptions,
    plan: Plan,
    device: torch.device,
    messages: list[str],
) -> list[Row]:
    """To tensors on the device that the network can be shown, with loading processes."""
    setting: dict[str, Any] = {"batch_size": options.batch_size, "workers": options.workers, "device": device}
    ours = {f"{options.workers} workers": our_feed(root, crop, **setting, seed=options.seed, prepared=True)}
    if options.gpu_decoding:
        try:
            feed = our_feed(root, crop, **setting, seed=options.seed, prepared=True, decode_on_gpu=True)
            feed.segment(1, 0)
            ours[f"{options.workers} workers, decoded on the GPU"] = feed
        except (UserError, TypeError, RuntimeError) as error:  # no GPU, or a torchvision without its decoder
            messages.append(f"decoding on the GPU: left out: {' '.join(str(error).split())[:200]}")
    feeds = ours | {name: plain_feed(name, root, crop, **setting) for name in REFERENCES}
    segments = {name: partial(feed.segment, plan.steps, plan.discard) for name, feed in feeds.items()}
    for segment in segments.values():  # starts the processes
        segment()
    rates = interleave(segments, plan.rounds, description=f"input, {title}, {options.workers} workers")
    return [
        Row("input", f"{title}, {name} / {reference}", UNIT, rates[name], rates[other])
        for name in ours
        for other, reference in REFERENCES.items()
    ]
