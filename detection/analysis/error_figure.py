"""TIDE's numbers of several runs as a figure."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.text import printable
from detection.analysis.error_tables import Analyses, sorted_by_gain
from detection.analysis.tide import ERROR_TYPES, SPECIAL_TYPES

MOST_CLASSES = 30
_LONGEST = 30  # characters of a name
_HATCHES = ("", "////", "....", "xxxx")  # of the first run, the second ...


def draw_errors(analyses: Analyses) -> Figure:
    """At the left what each type of error costs each run; at the right the AP of each class, a dot for each run.

    Of more than 30 classes those are shown in which the runs differ most (the first with the last; of one run, those
    of the lowest AP), which the title says.
    """
    classes, chosen = _shown(analyses)
    figure = new_figure(11.5, max(4.4, 0.24 * len(classes) + 1.6))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    _draw_costs(left, analyses)
    _draw_classes(right, analyses, classes)
    right.set_title(f"AP50 by class{chosen}", fontsize="medium")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    return figure


def draw_errors_by_class(analyses: Analyses) -> Figure:
    """What each type of error costs in each class: a bar of the six types for each run, those of a class together.

    The classes are those of `draw_errors`.
    """
    classes, chosen = _shown(analyses)
    count = len(analyses)
    figure = new_figure(9, max(3.6, (0.11 + 0.13 * count) * len(classes) + 2.2))
    axes = figure.subplots()
    width = 0.8 / count
    for number, (analysis, hatch) in enumerate(zip(analyses.values(), itertools.cycle(_HATCHES), strict=False)):
        places = np.arange(len(classes)) + width * (number - (count - 1) / 2)
        left = np.zeros(len(classes))
        for kind, colour in zip(ERROR_TYPES, COLOURS, strict=False):
            values = np.array([errors.lost[kind] for c in classes if (errors := analysis.per_class[c]) is not None])
            axes.barh(places, values, 0.9 * width, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            left += values
    _name_classes(axes, classes)
    axes.set_xlim(left=0)
    axes.set_xlabel("AP50 that mending each type alone would gain (%); the gains do not add up exactly")
    axes.set_title(f"What each type of error costs by class{chosen}", fontsize="medium")
    kinds = [Patch(color=colour, label=kind) for kind, colour in zip(ERROR_TYPES, COLOURS, strict=False)]
    figure.legend(handles=kinds, loc="outside lower center", ncols=len(kinds), frameon=False, fontsize="small")
    if count > 1:
        runs = [
            Patch(facecolor="0.6", hatch=hatch, edgecolor="white", linewidth=0, label=_short(name))
            for name, hatch in zip(analyses, itertools.cycle(_HATCHES), strict=False)
        ]
        figure.legend(handles=runs, loc="outside upper center", ncols=min(count, 3), frameon=False, fontsize="small")
    return figure


def _shown(analyses: Analyses) -> tuple[list[str], str]:
    """The classes to show, and how they were chosen where these are not all."""
    runs = list(analyses.values())
    classes = sorted_by_gain(analyses)
    aps = {name: [each.ap for run in runs if (each := run.per_class[name]) is not None] for name in classes}
    if len(classes) > MOST_CLASSES and len(runs) > 1:
        chosen = set(sorted(classes, key=lambda name: -abs(aps[name][-1] - aps[name][0]))[:MOST_CLASSES])
        how = f": the {MOST_CLASSES} of {len(classes)} whose AP50 differs most"
    elif len(classes) > MOST_CLASSES:
        chosen = set(sorted(classes, key=lambda name: aps[name][0])[:MOST_CLASSES])
        how = f": the {MOST_CLASSES} of {len(classes)} with the lowest AP50"
    else:
        chosen, how = set(classes), ""
    if len(runs) == 1:
        classes.sort(key=lambda name: -aps[name][0])
    return [name for name in classes if name in chosen], how


def _short(name: str) -> str:
    """A name as a figure has room for it."""
    name = printable(name)
    return literal(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")


def _draw_costs(axes: Axes, analyses: Analyses) -> None:
    types = [*ERROR_TYPES, *SPECIAL_TYPES]
    places = np.arange(len(types)) + np.where(np.arange(len(types)) >= len(ERROR_TYPES), 0.5, 0)
    width = 0.8 / len(analyses)
    for number, (name, analysis) in enumerate(analyses.items()):
        errors = analysis.overall
        values = [0.0] * len(types) if errors is None else [*errors.lost.values(), *errors.special.values()]
        ap = "no AP" if errors is None else f"AP50 {errors.ap:.1f} %"
        bars = axes.barh(
            places + width * (number - (len(analyses) - 1) / 2),
            values,
            width,
            color=COLOURS[number % len(COLOURS)],
            label=f"{_short(name)} ({ap})",
        )
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize="small")
    axes.set_yticks(places, types)
    axes.invert_yaxis()
    clear_frame(axes)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.set_xlabel("AP50 that mending it would gain (%)")
    axes.set_title("What each type of error costs", fontsize="medium")


def _draw_classes(axes: Axes, analyses: Analyses, classes: list[str]) -> None:
    places = np.arange(len(classes))
    table = [[each.ap for name in classes if (each := run.per_class[name]) is not None] for run in analyses.values()]
    aps = np.array(table).reshape(len(analyses), len(classes))
    if len(classes):
        axes.hlines(places, aps.min(axis=0), aps.max(axis=0), color="0.75", linewidth=2, zorder=1)
    for number, row in enumerate(aps):
        axes.scatter(row, places, s=34, color=COLOURS[number % len(COLOURS)], zorder=2)
    _name_classes(axes, classes)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("AP50 (%)")


def _name_classes(axes: Axes, classes: list[str]) -> None:
    """The classes from the top down."""
    size = "small" if len(classes) > 12 else "medium"
    axes.set_yticks(np.arange(len(classes)), [_short(name) for name in classes], fontsize=size)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    clear_frame(axes)
