"""The command `plot_curves`: training and test errors over the iterations, as in Figures 4 and 6."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.analysis.curves import Curve, distinct, read_curve, smooth
from backbones.analysis.figures import COLOURS, check_figure, clear_frame, literal, new_figure, save_figure
from backbones.cli import run_command
from backbones.errors import ConfigError
from backbones.text import printable


def plot_curves(
    run: list[str],
    output: str,
    labels: list[str] = [],  # noqa: B006 (read by the command line, never changed)
    panels: list[int] = [],  # noqa: B006
    titles: list[str] = [],  # noqa: B006
    smoothing: int = 5,
    error_range: list[float] = [],  # noqa: B006
) -> None:
    """Draws the errors of runs over their iterations: thin lines in training, bold lines in testing (Fig. 4 and 6).

    Example, plain nets beside residual ones: python tools/plot_curves.py --run plain18 plain34 resnet18 resnet34
    --panels 2 2 --titles plain ResNet --output fig4.png

    Args:
        run: run folders, or recorded runs (results/*/*.json).
        output: the figure (.png, .svg, .pdf).
        labels: what to call the runs, in their order; by default the networks' names.
        panels: how many of the runs each panel shows, in their order; by default all in one.
        titles: of the panels.
        smoothing: a training error is the mean over this many logged points around it (an odd number; 1 for none).
        error_range: lowest and highest error of the axis in percent; by default all that there is.
    """
    path = check_figure(output)
    panels = panels or [len(run)]
    if sum(panels) != len(run) or min(panels) < 1:
        raise ConfigError(
            f"panels {' '.join(map(str, panels))}: must be 1 or more each, and add up to {len(run)} run(s)"
        )
    if labels and len(labels) != len(run):
        raise ConfigError(f"labels: {len(labels)} for {len(run)} run(s); give one for each")
    if titles and len(titles) != len(panels):
        raise ConfigError(f"titles: {len(titles)} for {len(panels)} panel(s); give one for each")
    if not (1 <= smoothing <= 1001 and smoothing % 2):
        raise ConfigError(f"smoothing {smoothing}: give an odd number from 1 to 1001")
    if error_range and not (len(error_range) == 2 and 0 <= error_range[0] < error_range[1] <= 100):
        raise ConfigError(f"error_range {' '.join(map(str, error_range))}: give two rising numbers from 0 to 100")
    curves = [read_curve(name) for name in run]
    names = labels or distinct(curve.label for curve in curves)
    curves = [replace(curve, label=name) for curve, name in zip(curves, names, strict=True)]
    rest = iter(curves)
    groups = [list(islice(rest, count)) for count in panels]
    save_figure(draw_curves(groups, titles, smoothing=smoothing, error_range=error_range), path)
    for curve in curves:
        errors = [f"{split} {points[-1, 1]:.2f} %" for split, points in _splits(curve) if len(points)]
        last = max(points[-1, 0] for _, points in _splits(curve) if len(points))
        print(f"{printable(curve.label)}: {last:,.0f} iterations, top-1 error: {', '.join(errors)}")
    print(path)


def draw_curves(
    panels: Sequence[Sequence[Curve]],
    titles: Sequence[str],
    *,
    smoothing: int,
    error_range: Sequence[float],
) -> Figure:
    """Panels side by side with a common axis of errors; a run has its own colour within its panel.

    Args:
        panels: the curves of each.
        titles: of each, or none.
        smoothing: see `smooth`.
        error_range: lowest and highest of the axis, in percent; empty for all that there is.
    """
    figure = new_figure(4.6 * len(panels) + 0.4, 4.2)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, (axes, curves) in enumerate(zip(row, panels, strict=True)):
        # Iterations by the ten thousand, as in the paper, where there are so many.
        last = max(points[-1, 0] for curve in curves for _, points in _splits(curve) if len(points))
        unit = 1e4 if last >= 1e4 else 1.0
        axes.set_xlabel("iterations (1e4)" if unit > 1 else "iterations")
        for number, curve in enumerate(curves):
            _draw(axes, curve, COLOURS[number % len(COLOURS)], unit, smoothing)
        clear_frame(axes)
        axes.set_xlim(0, 1.01 * last / unit)  # the last point shows whole
        if titles:
            axes.set_title(literal(titles[place]))
        axes.legend(loc="upper right", frameon=False, fontsize="small")
    row[0].set_ylabel("top-1 error (%)")
    if error_range:
        row[0].set_ylim(error_range[0], error_range[1])
    mean = f", mean over {smoothing} logged points" if smoothing > 1 else ""
    figure.supxlabel(f"thin: training error{mean}; bold: test error", fontsize="small", color="0.3")
    return figure


def _draw(axes: Axes, curve: Curve, colour: str, unit: float, smoothing: int) -> None:
    axes.plot([], [], color=colour, linewidth=2.2, label=literal(curve.label))
    if len(curve.train):
        errors = smooth(curve.train[:, 1], smoothing)
        axes.plot(curve.train[:, 0] / unit, errors, color=colour, linewidth=0.8, alpha=0.9)
    if len(curve.test):
        # Where a run was tested but a few times, the points are what was measured.
        marker = "o" if len(curve.test) <= 20 else None
        steps, errors = curve.test.T
        axes.plot(steps / unit, errors, color=colour, linewidth=2.2, marker=marker, markersize=4.5)


def _splits(curve: Curve) -> list[tuple[str, np.ndarray]]:
    return [("train", curve.train), ("test", curve.test)]


def main(argv: Sequence[str] | None = None) -> None:
    """The command `plot_curves`."""
    run_command(plot_curves, argv=argv)
