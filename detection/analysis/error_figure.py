"""TIDE's numbers of several runs as a figure."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.data.findings import printable
from detection.analysis.error_tables import Analyses, sorted_by_gain
from detection.analysis.tide import ERROR_TYPES, SPECIAL_TYPES

MOST_CLASSES = 30


def draw_errors(analyses: Analyses) -> Figure:
    """At the left what each type of error costs each run; at the right the AP of each class, a dot for each run.

    Of more than 30 classes those are shown in which the runs differ most (the first with the last; of one run, those
    of the lowest AP), which the title says.
    """
    classes, title = _shown(analyses)
    figure = new_figure(11.5, max(4.4, 0.24 * len(classes) + 1.6))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    _draw_costs(left, analyses)
    _draw_classes(right, analyses, classes)
    right.set_title(title, fontsize="medium")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    return figure


def _shown(analyses: Analyses) -> tuple[list[str], str]:
    runs = list(analyses.values())
    classes = sorted_by_gain(analyses)
    aps = {name: [each.ap for run in runs if (each := run.per_class[name]) is not None] for name in classes}
    if len(classes) > MOST_CLASSES and len(runs) > 1:
        chosen = set(sorted(classes, key=lambda name: -abs(aps[name][-1] - aps[name][0]))[:MOST_CLASSES])
        title = f"AP50 by class: the {MOST_CLASSES} of {len(classes)} with the largest differences"
    elif len(classes) > MOST_CLASSES:
        chosen = set(sorted(classes, key=lambda name: aps[name][0])[:MOST_CLASSES])
        title = f"AP50 by class: the {MOST_CLASSES} of {len(classes)} with the lowest"
    else:
        chosen, title = set(classes), "AP50 by class"
    if len(runs) == 1:
        classes.sort(key=lambda name: -aps[name][0])
    return [name for name in classes if name in chosen], title


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
            label=literal(printable(f"{name} ({ap})")),
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
    axes.set_yticks(
        places, [literal(printable(name)) for name in classes], fontsize="small" if len(classes) > 12 else "medium"
    )
    axes.set_ylim(len(classes) - 0.5, -0.5)
    clear_frame(axes)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("AP50 (%)")
