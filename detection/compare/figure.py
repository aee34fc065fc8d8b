"""A comparison as a figure: what is reached, against what it costs."""

import itertools
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.text import printable
from detection.compare.config import ComparisonConfig
from detection.compare.record import Measured
from detection.compare.table import MEGA, base_of, title

_MARKERS = "osD^v<>P"
LEAST_RANGE = 2.0
"""Points of AP that axes show at least: less is hardly a difference."""


def draw_comparison(config: ComparisonConfig, measured: Measured) -> Figure | None:
    """A line of axes for each column: the number against seconds a picture, and against memory. A grey line joins each
    row to the one that its gain is counted from. None where there are no numbers."""
    rows = [measured[row.name] for row in config.rows if row.name in measured]
    columns = [column for column in config.metric if any(row.number(column) is not None for row in rows)]
    if not columns:
        return None
    on_cpu = any(row.cpu_seconds_per_picture is not None for row in rows)
    costs = {f"{'CPU ' if on_cpu else ''}seconds a picture": {row.name: row.time for row in rows}}
    if any(row.peak_memory for row in rows):
        costs["memory at the peak (MB)"] = {row.name: (row.peak_memory or 0) / MEGA for row in rows}
    figure = new_figure(5.2 * len(costs), 2.7 * len(columns) + 0.14 * len(rows) + 0.6)
    grid = figure.subplots(len(columns), len(costs), squeeze=False)
    for line, column in zip(grid, columns, strict=True):
        numbers = {row.name: value for row in rows if (value := row.number(column)) is not None}
        for axes, (label, cost) in zip(line, costs.items(), strict=True):
            _draw(axes, config, {name: (cost[name], value) for name, value in numbers.items()})
            axes.set_xlabel(label)
        line[0].set_ylabel(f"{title(column)} (%)")
    figure.suptitle(literal(printable(config.title)), fontsize="medium")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def _draw(axes: Axes, config: ComparisonConfig, points: Mapping[str, tuple[float, float]]) -> None:
    """Rows as points (cost, number)."""
    for row in config.rows:
        base = base_of(config, row)
        if row.name in points and base in points:
            axes.plot(*zip(points[row.name], points[str(base)], strict=True), color="0.8", linewidth=1.2, zorder=1)
    looks = zip(itertools.cycle(_MARKERS), itertools.cycle(COLOURS), strict=False)
    for (name, (cost, value)), (marker, colour) in zip(points.items(), looks, strict=False):
        axes.scatter(cost, value, s=44, marker=marker, color=colour, label=literal(printable(name)), zorder=2)
    axes.set_xlim(0, 1.12 * max(cost for cost, _ in points.values()))
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    spare = max(0.0, LEAST_RANGE - (high - low)) / 2
    axes.set_ylim(low - spare, high + spare)
    clear_frame(axes)
