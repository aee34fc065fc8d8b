"""The command `encode_features`: patches as the network has them, the table, the files, and bad input in one line."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from matplotlib.container import ErrorbarContainer
from PIL import Image

from backbones import get_model
from backbones.analysis.look import Look
from backbones.data.shapes import CLASS_NAMES
from backbones.encoding import code_books
from backbones.encoding.comparison import Comparison, Row, Split
from backbones.encoding.encode_features import main
from backbones.encoding.linear import STRENGTHS
from backbones.encoding.normalisation import Normalisation, unit_length
from backbones.encoding.patches import Features, PatchReader
from backbones.encoding.report import draw_rows, format_rows
from backbones.encoding.whitening import fit_whitening
from backbones.weights import WeightsMetadata, save_weights

METADATA = WeightsMetadata(
    "classification", "cifar_resnet8", {"width": 4}, CLASS_NAMES, [127.5] * 3, [64.0] * 3, input_size=32
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network that was never trained."""
    torch.manual_seed(0)
    save_weights(
        tmp_path / "weights.safetensors", get_model("cifar_resnet8", len(CLASS_NAMES), width=4).state_dict(), METADATA
    )
    return tmp_path / "weights.safetensors"


def arguments(weights: Path, *others: str) -> list[str]:
    few = ["--train_pictures", "30", "--test_pictures", "20", "--sample", "500", "--dimensions", "3", "--centres", "4"]
    shapes = ["--data.name", "shapes", "--data.train_size", "40", "--data.test_size", "30", "--workers", "0"]
    return ["--model", str(weights), *shapes, *few, *others]


def test_patches_are_the_networks_own() -> None:
    torch.manual_seed(0)
    network = get_model("cifar_resnet8", len(CLASS_NAMES), width=4).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    counted: list[int] = []
    look = Look(network, METADATA, lambda index: pictures[index], ["conv3", "conv4"], torch.device("cpu"))
    reader = PatchReader(look, "conv3", 3, 0, counted.append)
    sample = reader.sample(range(7), 100, seed=0)
    assert sample.shape == (7 * 15, 8)  # 100 / 7, rounded up, of each
    np.testing.assert_allclose(np.linalg.norm(sample, axis=1), 1, rtol=1e-5)
    whitening = fit_whitening(sample, 4, "mean")
    features = reader.read([5, 2], whitening)
    assert counted == [3, 3, 1, 2]
    with torch.inference_mode():
        x = torch.from_numpy(pictures[[5, 2]]).permute(0, 3, 1, 2).float()
        x = network.relu(network.bn1(network.conv1((x - 127.5) / 64)))
        maps = network.layer2(network.layer1(x))
        last = network.layer3(maps)
        logits = network.fc(torch.from_numpy(features.pooled))
    np.testing.assert_allclose(logits, network.fc(last.mean((2, 3))).detach(), atol=1e-5)
    np.testing.assert_allclose(features.average, maps.mean((2, 3)), rtol=1e-5)
    assert features.patches.shape == (2, 16 * 16, 4)
    patch = whitening(unit_length(maps[1, :, 3, 9].numpy()))
    np.testing.assert_allclose(features.patches[1, 3 * 16 + 9], patch, atol=1e-4)


def test_the_command(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, figure = tmp_path / "out" / "encodings.json", tmp_path / "out" / "encodings.png"
    main(arguments(weights, "--code_books", "2", "--normalisations", "l2", "power", "--encodings", "vlad",
                   "vlad_plain", "fisher", "--output", str(output), "--figure", str(figure)))  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "256 patches of conv3 in a picture, 3 dimensions; 30 training and 20 test pictures"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:-1]]
    assert [row[:5] for row in cells[2::2]] == [
        ["pooled", "pooled", "-", "l2", "16"],
        ["average", "pooled", "-", "l2", "8"],
        ["vlad", "residual", "4", "l2", "12"],
        ["vlad_plain", "plain", "4", "l2", "12"],
        ["fisher", "residual", "4", "l2", "24"],
    ]
    assert all("±" in cells[place][5] and "±" in cells[place][6] for place in range(6, 12))
    record = json.loads(output.read_text())
    assert record["options"]["stage"] == "conv3"
    assert record["options"]["data"]["name"] == "shapes"
    assert {"command", "git_commit", "versions", "hardware", "wall_clock_seconds"} <= record.keys()
    assert len(record["rows"]) == 2 * (2 + 2 * 3)
    assert {row["code_book"] for row in record["rows"]} == {None, 0, 1}
    for row in record["rows"]:
        assert 0 < row["retrieval_mAP"] <= 100
        assert 0 <= row["top1_error"] < 100
        assert row["strength"] in STRENGTHS
        assert (row["encode_seconds"] > 0) == (row["kind"] != "pooled")
    assert len(np.unique(np.asarray(Image.open(figure).convert("L")))) > 20


def test_the_same_seed_gives_the_same_numbers_and_residuals_know_no_origin(weights: Path, tmp_path: Path) -> None:
    results = []
    for place, others in enumerate(([], [], ["--origin", "zero"])):
        output = tmp_path / f"{place}.json"
        main(arguments(weights, *others, "--output", str(output)))
        rows = json.loads(output.read_text())["rows"]
        results.append({row["encoding"]: row["retrieval_mAP"] for row in rows})
    first, again, moved = results
    assert first == again
    for name in ("vlad", "fisher"):
        assert moved[name] == pytest.approx(first[name], abs=0.5)
        assert abs(moved[f"{name}_plain"] - first[f"{name}_plain"]) > 0.5


def test_quantisation_is_a_sentence(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "quantised.json"
    main(arguments(weights, "--encodings", "vlad", "--dimensions", "8", "--quantise", "--output", str(output)))
    [lost] = json.loads(output.read_text())["quantisation"]
    assert f"in 64 bits loses {lost['original']:.2f} %" in capsys.readouterr().out.splitlines()[-2]


def row(
    encoding: str, kind: Literal["residual", "plain", "pooled"], how: Normalisation, score: float, seed: int
) -> Row:
    size, book = (None, None) if kind == "pooled" else (4, seed)
    return Row(encoding, kind, size, book, how, retrieval_mAP=score)


def test_bars_are_as_high_as_the_mean_of_code_books_and_lines_have_no_code_book() -> None:
    """Intra is drawn with l2's lines and histogram, which it would only repeat."""
    rows = [row("pooled", "pooled", "l2", 80.0, 0), row("average", "pooled", "l2", 70.0, 0)]
    for seed, more in enumerate((0.0, 4.0)):
        rows += [row("vlad", "residual", "l2", 10 + more, seed), row("vlad", "residual", "intra", 20 + more, seed)]
        rows += [
            row("vlad_plain", "plain", "l2", 30 + more, seed),
            row("vlad_plain", "plain", "intra", 40 + more, seed),
        ]
        rows += [row("histogram", "plain", "l2", 50 + more, seed)]
    panels = draw_rows(rows, "drawn").axes
    assert [panel.get_title() for panel in panels] == ["4 centres, l2", "4 centres, intra"]
    for panel, vlad, plain in zip(panels, (12, 22), (32, 42), strict=True):
        residual, *others = panel.patches
        assert residual.get_height() == vlad
        assert [bar.get_height() for bar in others] == [plain, 52]
        assert [round(bar.get_x() + bar.get_width() / 2, 2) for bar in panel.patches] == [-0.2, 0.2, 1.2]
        lines = {line.get_label(): set(line.get_ydata()) for line in panel.lines if len(line.get_ydata()) == 2}
        assert lines["pooled"] == {80.0}
        assert lines["average"] == {70.0}
        spreads = [[list(part[:, 1]) for part in bars.lines[2][0].get_segments()]
                   for bars in panel.containers if isinstance(bars, ErrorbarContainer)]  # fmt: skip
        assert spreads == [[[vlad - 2, vlad + 2]], [[plain - 2, plain + 2], [50, 54]]]


def test_intra_is_left_out_where_it_repeats_l2(weights: Path, tmp_path: Path) -> None:
    output, both = tmp_path / "rows.json", ["--encodings", "vlad", "histogram", "--output", str(tmp_path / "rows.json")]
    main(arguments(weights, *both, "--normalisations", "l2", "intra"))
    found = {(each["encoding"], each["normalisation"]): each for each in json.loads(output.read_text())["rows"]}
    assert [name for name, how in found if how == "intra"] == ["vlad"]
    main(arguments(weights, *both, "--normalisations", "intra"))
    alone = {each["encoding"]: each for each in json.loads(output.read_text())["rows"]}
    for name in ("pooled", "average", "histogram"):
        for number in ("retrieval_mAP", "top1_error", "strength"):
            assert alone[name][number] == pytest.approx(found[name, "l2"][number])


def test_a_mixture_is_only_fitted_for_fisher_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    for kind in ("KMeans", "GaussianMixture"):
        fit = getattr(code_books, kind)
        monkeypatch.setattr(code_books, kind, lambda *a, fit=fit, **k: (fitted.append(fit.__name__), fit(*a, **k))[1])
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 10)
    features = Features(rng.normal(size=(20, 5, 3)), rng.normal(size=(20, 4)), rng.normal(size=(20, 4)))
    comparison = Comparison(Split(features, labels), Split(features, labels), ["l2"])
    for names, expected in (
        (["vlad", "histogram_soft"], ["KMeans"]),
        (["fisher", "fisher_plain"], ["GaussianMixture"]),
    ):
        fitted.clear()
        assert [same[0].encoding for same in comparison.encoded(names, 3, 100, seed=0)] == names
        assert fitted == expected


def test_one_encoding_alone_is_drawn(weights: Path, tmp_path: Path) -> None:
    main(arguments(weights, "--encodings", "histogram", "--figure", str(tmp_path / "one.svg")))
    assert "histogram" in (tmp_path / "one.svg").read_text()


def test_rows_of_several_code_books_are_one_line() -> None:
    rows = [Row("vlad", "residual", 4, seed, "l2", 12, 50.0 + seed, 30.0, 1.0, 0.25) for seed in (0, 1, 2)]
    *_, line = format_rows(rows).splitlines()
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "vlad", "residual", "4", "l2", "12", "51.00 ± 1.00", "30.00 ± 0.00", "0.25",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (["--stage", "conv9"], ["conv9", "conv1, conv2"]),
        (["--centres", "0"], ["centres 0"]),
        (["--centres", "501"], ["centres 501", "sample 500"]),
        (["--data.name", "folder"], ["data.root"]),
        (["--dimensions", "9"], ["dimensions 9", "8 directions"]),
        (["--encodings", "sift"], ["sift"]),
        (["--normalisations", "l1"], ["l1"]),
        (["--quantise"], ["dimensions 3", "multiple of 8"]),
        (["--code_books", "0"], ["code_books 0"]),
        (["--train_pictures", "9"], ["10 training pictures", "9"]),
        (["--test_pictures", "2"], ["two test pictures"]),
        (["--seed", "-1"], ["seed -1"]),
        (["--workers", "-1"], ["workers"]),
        (["--figure", "figure.jpeg"], ["figure.jpeg", ".png"]),
        (["--output", "."], ["is a folder"]),
        (["--data.name", "cifar10"], ["airplane", "circle"]),
        (["--data.test_split", "all"], ["all"]),
        (["--model", "nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_line(
    weights: Path, capsys: pytest.CaptureFixture[str], others: list[str], words: list[str]
) -> None:
    message = refused(arguments(weights, *others), capsys)
    assert all(word in message for word in words)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(command)
    *bars, message = filter(None, capsys.readouterr().err.splitlines())
    assert exit_.value.code == 2
    assert all("picture/s" in line or "encoding/s" in line for line in bars)
    assert message.startswith("error: ")
    return message


def test_a_network_that_responds_to_nothing_or_with_no_numbers(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = get_model("cifar_resnet8", len(CLASS_NAMES), width=4)
    for bias, words in ((-1e6, "varies in only 0 directions"), (3e38, "not finite")):
        torch.nn.init.constant_(network.bn1.bias, bias)
        save_weights(weights, network.state_dict(), METADATA)
        assert words in refused(arguments(weights, "--stage", "conv1" if bias < 0 else "conv2"), capsys)
