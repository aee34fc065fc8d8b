"""The comparison as a table and as a figure."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure
from backbones.encoding.comparison import Row
from backbones.encoding.normalisation import Normalisation
from backbones.encoding.quantisation import BITS, PARTS, Distortion
from backbones.markdown import format_table

_HEADER = [
    "encoding",
    "vectors",
    "centres",
    "normalisation",
    "length",
    "retrieval mAP %",
    "top-1 error %",
    "encoding s",
]
_PLAIN = "_plain"


def format_rows(rows: Sequence[Row]) -> str:
    """A line for all code books of one size; numbers as mean ± standard deviation where there are several."""
    lines = [_HEADER]
    for same in group_rows(rows):
        first = same[0]
        centres = "-" if first.centres is None else str(first.centres)
        scores = [_mean([getattr(row, key) for row in same]) for key in ("retrieval_mAP", "top1_error")]
        seconds = f"{statistics.mean(row.encode_seconds for row in same):.3g}"
        lines.append([first.encoding, first.kind, centres, first.normalisation, str(first.length), *scores, seconds])
    return format_table(lines, texts=2)


def format_distortions(distortions: Sequence[Distortion]) -> str:
    """A sentence; numbers as in the table."""
    original, residual = (_mean([getattr(each, key) for each in distortions]) for key in ("original", "residual"))
    return (
        f"product quantisation of a patch in {PARTS * BITS} bits loses {original} % of the variance, "
        f"by way of residuals to {2**PARTS} centres {residual} %"
    )


def group_rows(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ in their code books' seeds only, together; in the order of the first."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.centres, row.normalisation, row.encoding), []).append(row)
    return list(groups.values())


def _mean(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def draw_rows(rows: Sequence[Row], title: str) -> Figure:
    """A panel for each normalisation and size of code book: retrieval mAP of residual encodings beside plain ones.

    Lines behind the bars are the features without a code book. Whiskers reach from the worst to the best code book.
    """
    normalisations = list(dict.fromkeys(row.normalisation for row in rows))
    sizes = sorted({row.centres for row in rows if row.centres is not None})
    figure = new_figure(max(5.5, 3.4 * len(sizes) + 1.5), 2.8 * len(normalisations) + 0.8)
    grid = figure.subplots(len(normalisations), len(sizes), sharex=True, sharey=True, squeeze=False)
    for line, how in zip(grid, normalisations, strict=True):
        line[0].set_ylabel("retrieval mAP (%)")
        for axes, size in zip(line, sizes, strict=True):
            _draw_bars(axes, _rows_with(how, [row for row in rows if row.centres in (size, None)]))
            axes.set_title(f"{size} centres, {how}", fontsize="medium")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Encodings of residuals and of the vectors themselves\n{literal(title)}", fontsize="medium")
    return figure


def _rows_with(how: Normalisation, rows: Sequence[Row]) -> list[Row]:
    """The rows of a normalisation; for intra also those that it would only repeat, which l2 has."""
    shown = [row for row in rows if row.normalisation == how]
    there = {row.encoding for row in shown}
    if how == "intra":
        shown += [row for row in rows if row.normalisation == "l2" and row.encoding not in there]
    return shown


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    groups = group_rows(rows)
    encoded = [same for same in groups if same[0].kind != "pooled"]
    names = list(dict.fromkeys(same[0].encoding.removesuffix(_PLAIN) for same in encoded))
    for side, kind in enumerate(("residual", "plain")):
        shown = [same for same in encoded if same[0].kind == kind]
        values = [[row.retrieval_mAP for row in same] for same in shown]
        means = [statistics.mean(some) for some in values]
        spread = [[mean - min(some) for mean, some in zip(means, values, strict=True)],
                  [max(some) - mean for mean, some in zip(means, values, strict=True)]]  # fmt: skip
        places = [names.index(same[0].encoding.removesuffix(_PLAIN)) + 0.4 * side - 0.2 for same in shown]
        axes.bar(places, means, 0.38, color=COLOURS[side], yerr=spread, ecolor="0.3", capsize=2, label=kind)
    for same, style in zip((g for g in groups if g[0].kind == "pooled"), ("-", "--"), strict=True):
        axes.axhline(same[0].retrieval_mAP, color="0.4", linestyle=style, linewidth=1, label=same[0].encoding)
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize="small")
    clear_frame(axes)
