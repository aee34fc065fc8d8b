"""Testing localisers (Appendix C): error rates, predictions and a sheet of pictures. Also the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from backbones.cli import run_command
from backbones.engine.acceleration import set_determinism
from backbones.engine.distributed import World, join_world
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import CheckpointError, ConfigError
from backbones.text import printable
from backbones.weights import load_classifier
from detection.data.cls_loc import read_cls_loc
from detection.data.readers import for_testing
from detection.localisation.config import LocalisationData, check_test_data, default_scales
from detection.localisation.predictions import draw_sheet, prediction_records
from detection.localisation.regions import RegionOptions
from detection.localisation.scoring import format_errors, score_localiser
from detection.localisation.subset import evenly_spaced
from detection.localisation.testing import Protocol, Rescoring, Running, Showing
from detection.localisation.training import Classifier
from detection.localisation.weights import load_localiser, load_regions


def evaluate_localiser(
    model: str,
    data: LocalisationData,
    rcnn: str | None = None,
    classifier: str | None = None,
    protocol: list[Protocol] = ["center"],  # noqa: B006 (jsonargparse reads the default)
    output: str | None = None,
    predictions: str | None = None,
    sheet: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    workers: int = 4,
) -> None:
    """Tests a localiser: errors with the picture's own class given, and with the classes that a classifier predicts.

    Beside them stand the errors of the box of the whole picture. Sizes come with the weights.
    Example: python tools/evaluate_localiser.py --model runs/rpn --classifier runs/resnet101 --data.root ILSVRC
    --protocol center dense --output errors.json

    Args:
        model: a run folder or weights.safetensors file of train_localiser.
        data: the pictures; root, test_split, test_count, test_scales and bad_boxes count.
        rcnn: a run folder or weights.safetensors file of train_localiser --part rcnn, whose network gives the
            localiser's proposals new scores and boxes; both are tested.
        classifier: a run folder or weights.safetensors file of a classifier of the same classes, which sees the central
            crop for "center" and the whole picture at several scales for "dense".
        protocol: "center" shows the central crop, "dense" the whole picture at several scales, and its mirror images.
        output: a JSON file for the error rates.
        predictions: a JSON file for the boxes.
        sheet: a PNG file for some pictures with their boxes.
        device: auto takes a GPU where there is one.
        precision: fp32 or bf16.
        workers: data-loading processes.
    """
    if workers < 0:
        raise ConfigError(f"workers {workers}: give 0 or more")
    if not protocol:
        raise ConfigError("--protocol: name one or both of center, dense")
    if not data.test_split:
        raise ConfigError("data.test_split is missing: name the split to test on")
    check_test_data(data)
    with join_world(device) as world:
        set_determinism(False, one_size=False)
        localiser, metadata = load_localiser(model)
        rescoring = None if rcnn is None else _load_rescoring(rcnn, model, metadata.classes, world)
        predictor = None if classifier is None else _load_predictor(classifier, model, metadata.classes, world)
        dataset = read_cls_loc(str(data.root), data.test_split, metadata.classes, bad_boxes=for_testing(data.bad_boxes))
        dataset = evenly_spaced(dataset, data.test_count)
        for file in (output, predictions, sheet):
            if file:
                check_writable(Path(file))
        sizes = metadata.input_size, metadata.test_resize or metadata.input_size
        scales = data.test_scales or default_scales(metadata.input_size)
        tested = score_localiser(
            localiser.to(world.device),
            dataset,
            [Showing(each, *sizes, scales) for each in dict.fromkeys(protocol)],
            Running(world, precision, workers),
            predictor,
            rescoring,
        )
        if not world.is_main:
            return
        print(f"{len(dataset):,} pictures of {data.test_split}; errors:")
        print(format_errors(tested.results))
        if output:
            write_json(Path(output), tested.results)
        if predictions:
            write_json(Path(predictions), prediction_records(dataset.annotations, tested))
        if sheet:
            draw_sheet(Path(sheet), dataset, tested)
        written = [file for file in (output, predictions, sheet) if file]
        if written:
            print(f"written: {', '.join(written)}")


def _load_predictor(path: str, model: str, classes: list[str], world: World) -> Classifier:
    network, metadata = load_classifier(path)
    _check_classes(path, sorted(metadata.classes), model, sorted(classes))  # predictions go by name
    return network.to(world.device), metadata


def _load_rescoring(path: str, model: str, classes: list[str], world: World) -> Rescoring:
    network, metadata = load_regions(path)
    _check_classes(path, metadata.classes, model, classes)
    return Rescoring(network.to(world.device), RegionOptions(**metadata.detector["regions"]))


def _check_classes(path: str, found: list[str], model: str, classes: list[str]) -> None:
    """Raises CheckpointError where a network's classes are not those of the localiser."""
    if found != classes:
        others = [name for name in found if name not in classes]
        which = f"'{printable(others[0])}' is none of them" if others else "they differ in number or order"
        raise CheckpointError(f"{path}: its {len(found)} classes are not the {len(classes)} of {model}: {which}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `evaluate_localiser`."""
    run_command(evaluate_localiser, argv=argv)


if __name__ == "__main__":
    main()
