"""TIDE's numbers of several runs as tables and sentences."""

from collections.abc import Mapping

import numpy as np

from backbones.markdown import format_table
from backbones.text import printable
from detection.analysis.tide import ERROR_TYPES, SPECIAL_TYPES, ErrorAnalysis, Errors
from detection.data.annotations import Annotations

_PHRASES = {
    "classification": "wrong classes",
    "localisation": "wrong places",
    "both": "both wrong",
    "duplicate": "duplicates",
    "background": "background",
    "missed": "missed objects",
}

Analyses = Mapping[str, ErrorAnalysis]
"""By the names of the runs."""


def run_table(analyses: Analyses) -> str:
    """A row for each run: AP50, and the dAP of each type of error."""
    rows = [["run", "AP50", *ERROR_TYPES, *SPECIAL_TYPES]]
    for name, analysis in analyses.items():
        rows.append([_cell(name), *_numbers(analysis.overall)])
    return "AP50 and what each type of error costs of it (dAP), %\n\n" + format_table(rows, texts=1)


def class_table(analyses: Analyses, truth: Annotations) -> str:
    """A row for each class that has objects: AP50 and dAPs of all runs, in the order of the gain where there are two.

    Ignored objects are not counted.
    """
    objects = _count_objects(truth)
    names = list(analyses)
    compared = len(names) == 2
    header = ["class", "objects", *(f"AP50 {_cell(name)}" for name in names), *["gain"][: int(compared)], *ERROR_TYPES]
    rows = []
    hopeless = False
    for name in sorted_by_gain(analyses) if compared else classes_with_objects(analyses):
        each = [errors for a in analyses.values() if (errors := a.per_class[name]) is not None]
        gain = [f"{each[1].ap - each[0].ap:+.2f}"] if compared else []
        costs = [" / ".join(_cost(errors, kind) for errors in each) for kind in ERROR_TYPES]
        hopeless |= any(map(_no_single_cause, each))
        rows.append([_cell(name), str(objects[name]), *(f"{errors.ap:.2f}" for errors in each), *gain, *costs])
    title = "By class: AP50, and dAP" + (f" of {' / '.join(map(_cell, names))}" if len(names) > 1 else "") + ", %"
    absent = [_cell(name) for name, count in objects.items() if not count]
    notes = ["-: nothing of the class was found, and mending one type of error alone would change nothing."] * hopeless
    notes += [f"Without objects: {', '.join(absent)}."] if absent else []
    return "\n\n".join([title, format_table([header, *rows], texts=1), *notes])


def _cost(errors: Errors, kind: str) -> str:
    return "-" if _no_single_cause(errors) else f"{errors.lost[kind]:.1f}"


def _no_single_cause(errors: Errors) -> bool:
    """All objects were missed, and there are wrong detections besides: only mending both would gain AP."""
    return not errors.ap and not any(errors.lost.values())


def _count_objects(truth: Annotations) -> dict[str, int]:
    """By class; ignored ones are not counted."""
    counts = np.bincount(truth.labels[~truth.ignore], minlength=len(truth.class_names) + 1)
    return {name: int(counts[label]) for label, name in enumerate(truth.class_names, 1)}


def explain(analyses: Analyses, truth: Annotations) -> list[str]:
    """For each run after the first: how its AP differs from that of the first, by which errors and in which classes."""
    (first, base), *others = analyses.items()
    return [_compare(first, base, name, other, _count_objects(truth)) for name, other in others]


def _compare(first: str, base: ErrorAnalysis, name: str, other: ErrorAnalysis, objects: dict[str, int]) -> str:
    if base.overall is None or other.overall is None:
        return "No class has objects: there is no AP."
    gain = other.overall.ap - base.overall.ap
    costs = {kind: base.overall.lost[kind] - other.overall.lost[kind] for kind in ERROR_TYPES}
    less = [f"{_PHRASES[kind]} ({-cost:.1f})" for kind, cost in _largest(costs, 1)]
    more = [f"{_PHRASES[kind]} ({-cost:+.1f})" for kind, cost in _largest(costs, -1)]
    sides = [f"{start} {', '.join(side)}" for start, side in (("less to", less), ("more to", more)) if side]
    lost = f"By type it loses {', and '.join(sides)}" if sides else "No type of error costs it more or less"
    by_class = {k: _ap(other, k) - _ap(base, k) for k in classes_with_objects({name: other})}
    best, worst = max(by_class, key=by_class.__getitem__), min(by_class, key=by_class.__getitem__)

    def describe(name: str) -> str:
        return f"{_cell(name)}, {objects[name]:,} object{'s'[: objects[name] != 1]} ({by_class[name]:+.1f})"

    classes = f"By class the difference is largest for {describe(best)}"
    classes += f", and smallest for {describe(worst)}." if worst != best else "."
    beside = f"{abs(gain):.2f} points {'above' if gain > 0 else 'below'}" if gain else "the same as"
    whole = f"AP50 of {_cell(name)} is {beside} {_cell(first)}'s{_side(base.overall, other.overall)}."
    return f"{whole} {lost} (in dAP, which does not add up). {classes}"


def _side(base: Errors, other: Errors) -> str:
    """Whether a difference is one of recall (missed objects cost more or less) or of precision (wrong detections)."""
    gain = other.ap - base.ap
    sides = {"recall": "false negatives", "precision": "false positives"}
    costs = {side: (other.special[kind], base.special[kind]) for side, kind in sides.items()}
    agree = [side for side, (now, before) in costs.items() if abs(now - before) >= 0.05 and (before - now) * gain > 0]
    what = f", a {'gain' if gain > 0 else 'loss'} of {' and '.join(agree)}" if agree else ""
    (missed, missed_before), (wrong, wrong_before) = costs.values()
    return (
        f"{what}: objects not found (false negatives) cost it {missed:.1f} against {missed_before:.1f}, "
        f"wrong detections (false positives) {wrong:.1f} against {wrong_before:.1f}"
    )


def classes_with_objects(analyses: Analyses) -> list[str]:
    """In the data set's order; they are the same for all runs."""
    analysis = next(iter(analyses.values()))
    return [name for name, errors in analysis.per_class.items() if errors is not None]


def sorted_by_gain(analyses: Analyses) -> list[str]:
    """The classes with objects, those first in which the last run is furthest above the first."""
    runs = list(analyses.values())
    first, last = runs[0], runs[-1]
    return sorted(classes_with_objects(analyses), key=lambda name: _ap(first, name) - _ap(last, name))


def _ap(analysis: ErrorAnalysis, name: str) -> float:
    errors = analysis.per_class[name]
    return 0.0 if errors is None else errors.ap


def _largest(costs: Mapping[str, float], sign: int) -> list[tuple[str, float]]:
    """The types that cost at least 0.05 less (sign 1) or more (-1), the largest first."""
    chosen = [(kind, cost) for kind, cost in costs.items() if sign * cost >= 0.05]
    return sorted(chosen, key=lambda item: -sign * item[1])


def _numbers(errors: Errors | None) -> list[str]:
    if errors is None:
        return ["-"] * (1 + len(ERROR_TYPES) + len(SPECIAL_TYPES))
    return [f"{value:.2f}" for value in (errors.ap, *errors.lost.values(), *errors.special.values())]


def _cell(name: str) -> str:
    """A name that can't break a table, nor a terminal."""
    return printable(" ".join(name.replace("|", "/").split()))
