"""All metrics of a detector: one call, one table."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from backbones.text import printable
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable
from detection.evaluate.coco import COCO_METRICS, PER_CLASS_METRICS, coco_metrics
from detection.evaluate.det import det_metrics
from detection.evaluate.voc import voc_metrics
from detection.structures import Detections

Metric = Literal["coco", "voc07", "voc12", "det"]


def metrics_of(data_name: str) -> list[Metric]:
    """What detections in a data set of this layout are scored by: all, but ILSVRC's own metric only where it is."""
    return [metric for metric in get_args(Metric) if metric != "det" or data_name == "det"]


def evaluate_detections(
    annotations: Annotations, detections: Sequence[Detections] | DetectionTable, metrics: Sequence[Metric]
) -> dict[str, dict[str, Any]]:
    """The metrics asked for, by name, in percent; None for a number that does not exist.

    Args:
        annotations: the objects of N pictures.
        detections: N, in the order of `annotations`, each best score first; or a table.
        metrics: "coco" gives COCO's twelve numbers and six a class, "voc07", "voc12" and "det" (ILSVRC's)
            give {"mAP", "per_class"}.
    """
    results: dict[str, dict[str, Any]] = {}
    if "coco" in metrics:
        results["coco"] = coco_metrics(annotations, detections)
    if "voc07" in metrics:
        results["voc07"] = voc_metrics(annotations, detections, "voc07")
    if "voc12" in metrics:
        results["voc12"] = voc_metrics(annotations, detections, "voc12")
    if "det" in metrics:
        results["det"] = det_metrics(annotations, detections)
    return results


def format_results(results: dict[str, dict[str, Any]]) -> str:
    """COCO's numbers, then all classes in one table; numbers that do not exist as dashes."""
    blocks = []
    if "coco" in results:
        rows = [(name, results["coco"][name]) for name in COCO_METRICS]
        blocks.append([f"{'COCO':<8}{'%':>8}", *(f"{name:<8}{_number(value):>8}" for name, value in rows)])
    blocks.append(_class_table(results))
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _class_table(results: dict[str, dict[str, Any]]) -> list[str]:
    """Columns of the metrics; rows of their mean over the classes and of each class; which classes have no object."""
    means: dict[str, float | None] = {}
    columns: dict[str, dict[str, float | None]] = {}
    if "coco" in results:
        for name in PER_CLASS_METRICS:
            means[name] = results["coco"][name]
            columns[name] = {label: values[name] for label, values in results["coco"]["per_class"].items()}
    for name in get_args(Metric):
        if name in results and name != "coco":
            means[name], columns[name] = results[name]["mAP"], results[name]["per_class"]
    first = next(iter(columns.values()), {})
    shown = {label: printable(label) for label in first}  # foreign files may hold anything
    width = max(map(len, ["AP in %", *shown.values()])) + 2
    rows = [("mAP", list(means.values()))]
    rows += [(shown[label], [column[label] for column in columns.values()]) for label in first]
    lines = [f"{'AP in %':<{width}}" + "".join(f"{name:>8}" for name in columns)]
    lines += [f"{label:<{width}}" + "".join(f"{_number(value):>8}" for value in values) for label, values in rows]
    absent = [shown[label] for label, value in first.items() if value is None]
    if absent:
        named = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        lines.append(f"no object that counts, so left out of the mean: {len(absent)} of {len(first)} classes: {named}")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
