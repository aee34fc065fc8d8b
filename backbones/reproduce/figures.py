"""The figures of the paper from run folders. A run that is missing or broken is left out, and named."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import fill
from typing import Any, TypeVar

from matplotlib.figure import Figure as Drawing

from backbones.analysis.curves import read_curve
from backbones.analysis.figures import COLOURS, clear_frame, literal, new_figure, save_figure
from backbones.analysis.layer_responses import measure_run
from backbones.analysis.plot_curves import draw_curves
from backbones.analysis.response_figure import draw_responses
from backbones.config import ClassificationData
from backbones.engine.outputs import write_json
from backbones.errors import UserError
from backbones.reproduce.paper import Beginning, Curves, Experiment, Figure, Responses
from backbones.reproduce.report import Circumstances
from backbones.reproduce.requests import Request
from backbones.reproduce.runs import Run

T = TypeVar("T")
_SMOOTHING = 5  # logged points that a training error is averaged over
_MOST_BYTES = 2**28


def make_figure(
    name: str,
    figure: Figure,
    runs: Mapping[str, Run],
    requests: Mapping[str, Request],
    experiments: Mapping[str, Experiment],
    output: Path,
    *,
    root: str | None,
    circumstances: Circumstances,
) -> list[str]:
    """Draws a figure as `<output>/<name>.png`, with its numbers as JSON where they are measured for it. One that can't
    be drawn leaves no earlier file behind.

    Args:
        name: of the figure.
        figure: what it shows.
        runs: by experiment, of one seed.
        requests: by experiment.
        experiments: for their labels.
        output: the folder of results.
        root: the folder of the data.
        circumstances: of the runs; where they are not the paper's, axes show all that there is.

    Returns:
        Lines to print: the file, and what is left out and why.
    """
    path, numbers = output / f"{name}.png", output / f"{name}.json"
    labels = {experiment: _label(experiments[experiment], run) for experiment, run in runs.items()}
    measured: list[dict[str, Any]] = []
    if figure.curves:
        drawing, lines = _curves(figure.curves, runs, labels, circumstances.comparable)
    elif figure.responses:
        drawing, measured, lines = _responses(figure.responses, runs, requests, labels, root)
    else:
        assert figure.beginning is not None
        drawing, lines = _beginning(figure.beginning, runs, requests, labels)
    if drawing is None:
        for earlier in [path, numbers] if figure.responses else [path]:
            earlier.unlink(missing_ok=True)
        return [f"{path}: not drawn, as no run can be shown", *lines]
    _say_of_what(drawing, circumstances.describe())
    save_figure(drawing, path)
    if figure.responses:
        write_json(numbers, {"circumstances": circumstances.describe(), "networks": measured})
        lines = [f"numbers: {numbers}", *lines]
    return [f"figure: {path} ({figure.title})", *lines]


def _label(experiment: Experiment, run: Run) -> str:
    return experiment.label if run.state == "finished" else f"{experiment.label} ({_how_far(run)})"


def _how_far(run: Run) -> str:
    return f"{run.state} at step {run.step:,}"


def _say_of_what(drawing: Drawing, text: str) -> None:
    """Adds a line below the panels, or below the title of a figure that has one: there its legend lies below them."""
    lines = fill(literal(text), width=int(14 * drawing.get_figwidth()))
    if title := drawing.get_suptitle():
        drawing.suptitle(f"{title}\n{lines}", fontsize="small")
    else:
        footer = "\n".join(filter(None, [drawing.get_supxlabel(), lines]))
        drawing.supxlabel(footer, fontsize="small", color="0.3")


def _curves(
    figure: Curves, runs: Mapping[str, Run], labels: Mapping[str, str], comparable: bool
) -> tuple[Drawing | None, list[str]]:
    lines: list[str] = []
    panels, titles = [], []
    for panel in figure.panels:
        shown = [name for name in panel.experiments if name in runs]
        curves = _each(shown, runs, lambda run: read_curve(run.folder), lines)
        if curves:
            titles.append(panel.title)
            panels.append([replace(curve, label=labels[name]) for name, curve in curves.items()])
    lines = list(dict.fromkeys(lines))  # a run can be in two panels
    if not panels:
        return None, lines
    error_range = figure.error_range if comparable else []
    return draw_curves(panels, titles, smoothing=_SMOOTHING, error_range=error_range), lines


def _responses(
    figure: Responses,
    runs: Mapping[str, Run],
    requests: Mapping[str, Request],
    labels: Mapping[str, str],
    root: str | None,
) -> tuple[Drawing | None, list[dict[str, Any]], list[str]]:
    lines: list[str] = []

    def measure(run: Run) -> Any:
        if run.state != "finished":
            raise UserError(run.state)
        config = requests[run.experiment].config
        data = ClassificationData(
            config["data.name"], root or _recorded_root(run), test_split=config["data.test_split"]
        )
        return measure_run(run.folder, data, count=figure.pictures, label=labels[run.experiment])

    networks = _each([name for name in figure.experiments if name in runs], runs, measure, lines)
    measured = [{"run": str(runs[name].folder), **asdict(network)} for name, network in networks.items()]
    return draw_responses(list(networks.values())) if networks else None, measured, lines


def _recorded_root(run: Run) -> str | None:
    data = run.record["config"].get("data")
    root = data.get("root") if isinstance(data, dict) else None
    return root if isinstance(root, str) else None


def _beginning(
    figure: Beginning, runs: Mapping[str, Run], requests: Mapping[str, Request], labels: Mapping[str, str]
) -> tuple[Drawing | None, list[str]]:
    lines: list[str] = []
    shown = [name for name in figure.experiments if name in runs]
    series = _each(shown, runs, lambda run: first_numbers(run, figure, requests[run.experiment].share), lines)
    if not series:
        return None, lines
    drawing = new_figure(4.6 * len(figure.numbers) + 0.4, 3.8)
    row = drawing.subplots(1, len(figure.numbers), squeeze=False)[0]
    for axes, (number, title) in zip(row, figure.numbers.items(), strict=True):
        for place, (name, logged) in enumerate(series.items()):
            points = [(step, values[number]) for step, values in logged if number in values]
            if points:
                steps, values = zip(*points, strict=True)
                colour = COLOURS[place % len(COLOURS)]
                axes.plot(steps, values, color=colour, linewidth=1.2, label=literal(labels[name]))
        clear_frame(axes)
        axes.set_xlabel("iterations")
        axes.set_ylabel(title)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    handles, names = max((axes.get_legend_handles_labels() for axes in row), key=lambda found: len(found[0]))
    drawing.legend(handles, names, loc="outside upper center", frameon=False, ncols=len(names), fontsize="small")
    return drawing, lines


def first_numbers(run: Run, figure: Beginning, share: float) -> list[tuple[int, dict[str, float]]]:
    """(step, numbers) of the training lines within the first steps of a run."""
    found = []
    path = run.folder / "metrics.jsonl"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError("metrics.jsonl is longer than that of any run")
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"metrics.jsonl can't be read ({error.strerror})") from error
    for line in lines:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and values.get("split") == "train" and type(values.get("step")) is int:
            numbers = {k: float(v) for k, v in values.items() if k in figure.numbers and _is_number(v)}
            if numbers and 0 <= values["step"] <= figure.steps * share:
                found.append((values["step"], numbers))
    if not found:
        raise UserError(f"has logged no {' or '.join(figure.numbers)}")
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _each(names: Sequence[str], runs: Mapping[str, Run], look: Callable[[Run], T], lines: list[str]) -> dict[str, T]:
    """What `look` gives for each run, but those that can't be looked at. `lines` says why, and what is not finished."""
    found = {}
    for name in names:
        run = runs[name]
        if run.state in ("to do", "broken"):
            lines.append(f"  without {run.folder.name}: {run.reason or 'not run'}")
            continue
        try:
            found[name] = look(run)
        except UserError as error:
            lines.append(f"  without {run.folder.name}: {error}")
            continue
        if run.state != "finished":
            lines.append(f"  {run.folder.name} is not finished: {_how_far(run)}")
    return found
