"""A comparison as a figure: what is reached, against what it costs."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.data.findings import printable
from detection.compare.config import ComparisonConfig
from detection.compare.record import MeasuredRow
from detection.compare.table import MEGA, Measured, base_of, title

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
    seconds = (
        "seconds a picture" if all(row.cpu_seconds_per_picture is None for row in rows) else "CPU seconds a picture"
    )
    with_memory = any(row.peak_memory for row in rows)
    figure = new_figure(10.5 if with_memory else 6, 2.7 * len(columns) + 0.14 * len(rows) + 0.6)
    grid = figure.subplots(len(columns), 2 if with_memory else 1, squeeze=False)
    for line, column in zip(grid, columns, strict=True):
        costs = [[row.time for row in rows]]
        if with_memory:
            costs.append([(row.peak_memory or 0) / MEGA for row in rows])
        for axes, cost, label in zip(line, costs, (seconds, "memory at the peak (MB)"), strict=False):
            _draw(axes, config, rows, cost, column)
            axes.set_xlabel(label)
        line[0].set_ylabel(f"{title(column)} (%)")
    figure.suptitle(literal(printable(config.title)), fontsize="medium")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def _draw(
    axes: Axes, config: ComparisonConfig, rows: Sequence[MeasuredRow], costs: Sequence[float], column: str
) -> None:
    points = {row.name: (cost, row.number(column)) for row, cost in zip(rows, costs, strict=True)}
    for row in config.rows:
        ends = [points.get(row.name), points.get(base_of(config, row) or "")]
        if all(end is not None and end[1] is not None for end in ends):
            axes.plot(*zip(*[end for end in ends if end], strict=True), color="0.8", linewidth=1.2, zorder=1)
    for number, (name, (cost, value)) in enumerate(points.items()):
        marker, colour = _MARKERS[number % len(_MARKERS)], COLOURS[number % len(COLOURS)]
        heights = [] if value is None else [value]
        places = [] if value is None else [cost]
        axes.scatter(places, heights, s=44, marker=marker, color=colour, label=literal(printable(name)), zorder=2)
        if value is not None:
            axes.annotate(
                f"{value:.1f}", (cost, value), (0, 7), textcoords="offset points", ha="center", fontsize="small"
            )
    axes.set_xlim(0, 1.12 * max(costs))
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    spare = max(0.0, LEAST_RANGE - (high - low)) / 2
    axes.set_ylim(low - spare, high + spare)
    clear_frame(axes)
