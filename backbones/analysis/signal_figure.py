"""Signals and gradients by depth, as a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.analysis.signals import SignalCase

_ROWS = {
    "variance": "variance of the output",
    "gradient_norm": "norm of the gradient\nat the output",
    "weight_gradient_norm": "norm of the gradient\nof the weights",
}
_STYLES = {"batch": "-", "none": (0, (4, 1.5))}
_MARKERS = {"he": "o", "small": "v", "large": "^", "trained": "s"}


def draw_signals(cases: Sequence[SignalCase]) -> Figure:
    """A column for each network, a row for each quantity, a line for each norm and initialisation; logarithmic."""
    networks = list(dict.fromkeys(case.network for case in cases))
    colours = dict(zip(_MARKERS, COLOURS, strict=False))
    figure = new_figure(max(2.9 * len(networks) + 0.8, 5), 7.2)
    grid = figure.subplots(len(_ROWS), len(networks), sharex="col", sharey="row", squeeze=False)
    for row, (quantity, label) in enumerate(_ROWS.items()):
        grid[row, 0].set_ylabel(label)
        for column, network in enumerate(networks):
            axes = grid[row, column]
            for case in (c for c in cases if c.network == network):
                values = np.array([getattr(layer, quantity) for layer in case.layers])
                axes.plot(
                    np.arange(1, len(values) + 1),
                    np.where(np.isfinite(values) & (values > 0), values, np.nan),
                    color=colours[case.initialisation],
                    linestyle=_STYLES[case.norm],
                    marker=_MARKERS[case.initialisation],
                    markevery=max(1, len(values) // 8),
                    markersize=3.5,
                    linewidth=1.3,
                )
            axes.set_yscale("log")
            clear_frame(axes)
            if row == 0:
                axes.set_title(literal(network), fontsize="medium")
            if row == len(_ROWS) - 1:
                axes.set_xlabel("layer, in order of execution")
    columns = 3 if len(networks) < 3 else 6
    figure.legend(handles=_legend(cases, colours), loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle("Signals on their way forward, gradients on their way back")
    return figure


def _legend(cases: Sequence[SignalCase], colours: dict[str, str]) -> list[Line2D]:
    words = {"he": "He et al.", "small": "deviation 0.01", "large": "deviation 0.1", "trained": "trained"}
    lines = [
        Line2D([], [], color=colours[key], marker=_MARKERS[key], markersize=4, label=words[key])
        for key in words
        if any(case.initialisation == key for case in cases)
    ]
    norms = {"batch": "batch norm", "none": "no batch norm"}
    return lines + [
        Line2D([], [], color="0.3", linestyle=_STYLES[key], label=norms[key])  # type: ignore[arg-type]
        for key in norms
        if any(case.norm == key for case in cases)
    ]
