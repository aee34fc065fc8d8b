"""All metrics of a detector: one call, one table."""

from collections.abc import Sequence
from typing import Any, Literal

from detection.data.annotations import Annotations
from detection.evaluate.coco import COCO_METRICS, coco_metrics
from detection.evaluate.voc import voc_metrics
from detection.structures import Detections

Metric = Literal["coco", "voc07", "voc12"]


def evaluate_detections(
    annotations: Annotations, detections: Sequence[Detections], metrics: Sequence[Metric]
) -> dict[str, dict[str, Any]]:
    """The metrics asked for, by name, in percent; None for a number that does not exist.

    Args:
        annotations: the objects of N pictures.
        detections: N, in the order of `annotations`, each best score first.
        metrics: "coco" gives COCO's twelve numbers, "voc07" and "voc12" give {"mAP", "per_class"}.
    """
    results: dict[str, dict[str, Any]] = {}
    if "coco" in metrics:
        results["coco"] = coco_metrics(annotations, detections)
    if "voc07" in metrics:
        results["voc07"] = voc_metrics(annotations, detections, "voc07")
    if "voc12" in metrics:
        results["voc12"] = voc_metrics(annotations, detections, "voc12")
    return results


def format_results(results: dict[str, dict[str, Any]]) -> str:
    """Results as a table to read, numbers that do not exist as dashes."""
    blocks = []
    if "coco" in results:
        rows = [(name, results["coco"][name]) for name in COCO_METRICS]
        blocks.append([f"{'COCO':<8}{'%':>8}", *(f"{name:<8}{_number(value):>8}" for name, value in rows)])
    voc = [metric for metric in ("voc07", "voc12") if metric in results]
    if voc:
        names = ["mAP", *results[voc[0]]["per_class"]]
        width = max(len("VOC AP, %"), *map(len, names)) + 2
        lines = [f"{'VOC AP, %':<{width}}" + "".join(f"{metric:>8}" for metric in voc)]
        for name in names:
            values = [results[m]["mAP"] if name == "mAP" else results[m]["per_class"][name] for m in voc]
            lines.append(f"{name:<{width}}" + "".join(f"{_number(value):>8}" for value in values))
        blocks.append(lines)
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
