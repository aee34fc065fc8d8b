"""Layer responses as in Figure 7: in the order of the layers, and sorted."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.analysis.responses import NetworkResponses

_PLAIN, _RESIDUAL = (0, (4, 1.5)), "-"


def draw_responses(networks: Sequence[NetworkResponses]) -> Figure:
    """Standard deviations by layer, above in their own order, below the largest first (Fig. 7).

    Plain nets are dashed, residual ones full; a plain and a residual net of as many layers share a colour. What is not
    a finite number is left out.
    """
    figure = new_figure(7.5, 6.8)
    panels = figure.subplots(2, 1)
    for network, colour in zip(networks, _colours(networks), strict=True):
        deviations = np.array([layer.std for layer in network.layers])
        finite = np.isfinite(deviations)
        in_order, by_size = np.where(finite, deviations, np.nan), np.sort(deviations[finite])[::-1]
        for axes, values in zip(panels, (in_order, by_size), strict=True):
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=colour,
                linestyle=_RESIDUAL if network.residual else _PLAIN,
                linewidth=1.4,
                label=literal(network.label),
            )
    for axes, order in zip(panels, ("original", "sorted by magnitude"), strict=True):
        axes.set_xlabel(f"layer index ({order})")
        axes.set_ylabel("std")
        axes.set_ylim(bottom=0, top=1.05 * axes.dataLim.y1 if axes.dataLim.y1 > 0 else 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        clear_frame(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = 3 if max(map(len, labels)) < 30 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    figure.suptitle("Responses of the 3x3 layers before the nonlinearity", fontsize="medium")
    return figure


def _colours(networks: Sequence[NetworkResponses]) -> list[str]:
    keys: list[tuple[int, int]] = []
    for place, network in enumerate(networks):
        depth = len(network.layers)
        alike = [n for n in networks[:place] if n.residual == network.residual and len(n.layers) == depth]
        keys.append((depth, len(alike)))
    colours = dict(zip(dict.fromkeys(keys), cycle(COLOURS), strict=False))
    return [colours[key] for key in keys]
