"""The command `detection_gallery`."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from detection.analysis.detection_gallery import main
from detection.analysis.gallery_sheet import (
    MEANINGS,
    STYLES,
    Counts,
    count_by_picture,
    draw_sheet,
    evenly_spaced,
    most_different,
    outcomes_from,
)
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable
from detection.structures import Detections

RAW = '<script>alert("x")</script>\ud800'  # a name of a foreign file, with half a character
EVIL = RAW.encode(errors="backslashreplace").decode()


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Six pictures with a cat each; run b finds all, run a misses that of picture 3 and thinks 4's a dog."""
    (tmp_path / "pictures").mkdir()
    box = [10, 20, 30, 40]
    sizes = [(80, 90)] * 5 + [(1, 4000)]
    for number, (height, width) in enumerate(sizes):
        Image.new("L" if number == 2 else "RGB", (width, height), 90).save(tmp_path / "pictures" / f"{number}.png")
    truth = {
        "images": [
            {"id": f"{RAW} {n}", "file_name": f"{n}.png", "height": h, "width": w} for n, (h, w) in enumerate(sizes)
        ],
        "categories": [{"id": 1, "name": RAW}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": f"{RAW} {n}", "category_id": 1, "bbox": box, "iscrowd": int(n == 5)} for n in range(6)
        ],
    }
    found = [{"image_id": f"{RAW} {n}", "category_id": 1, "bbox": box, "score": 0.8} for n in range(6)]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "b.json").write_text(json.dumps(found))
    found[4]["category_id"] = 2
    found[3]["score"] = 0.2
    (tmp_path / "a.json").write_text(json.dumps(found))
    return tmp_path


def gallery(folder: Path, *options: str, runs: tuple[str, ...] = ("a.json", "b.json"), images: bool = True) -> str:
    arguments = ["--annotations", str(folder / "truth.json"), "--output", str(folder / "out"), *options]
    arguments += ["--detections", *(str(folder / run) for run in runs)]
    main([*arguments, "--images", str(folder / "pictures")] if images else arguments)
    return (folder / "out" / "index.html").read_text()


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_pictures_in_which_runs_differ(coco: Path, capsys: pytest.CaptureFixture) -> None:
    page = Page(gallery(coco, "--count", "2"))
    assert [text for text in page.texts if text.endswith("x 80)")] == [f"{EVIL} {n}, {n}.png (90 x 80)" for n in (3, 4)]
    assert page.links == ["picture-001.png", "picture-001.png", "picture-002.png", "picture-002.png"]
    assert "script" not in page.tags
    assert f"ground truth: {EVIL}" in page.texts
    assert f"{EVIL}: {MEANINGS['missed']}" in page.texts
    assert f"dog 0.80: wrong class, it is {EVIL}" in page.texts
    assert "a: F1 0.00, 0 right, 1 wrong, 1 not found (1 of them with a wrong box)" in page.texts
    assert "b: F1 1.00, 1 right, 0 wrong, 0 not found" in page.texts
    assert {p.name for p in (coco / "out").iterdir()} == {"index.html", "picture-001.png", "picture-002.png"}
    assert "2 of 6 pictures" in capsys.readouterr().out


def test_even_steps_and_one_run(coco: Path) -> None:
    page = Page(gallery(coco, "--count", "3", "--choose", "even"))
    assert [t for t in page.texts if t.endswith(("x 80)", "x 1)"))] == [
        f"{EVIL} {n}, {n}.png ({'4000 x 1' if n == 5 else '90 x 80'})" for n in (0, 2, 5)
    ]
    page = Page(gallery(coco, "--overwrite", runs=("b.json",)))
    assert len(set(page.links)) == 6
    assert f"ground truth: {EVIL} (ignored)" in page.texts
    assert f"{EVIL} 0.80: {MEANINGS['ignored']}" in page.texts


@pytest.mark.parametrize(
    ("options", "images", "message"),
    [
        (["--count", "0"], True, "count 0"),
        ([], False, "--images is missing"),
        (["--names", "one"], True, "--names: 1 for 2"),
        (["--output", "/proc/nowhere"], True, "/proc/nowhere"),
    ],
)
def test_bad_input(coco: Path, capsys: pytest.CaptureFixture, options: list[str], images: bool, message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        gallery(coco, *options, images=images)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (coco / "out").exists()


def test_a_picture_that_is_missing_or_broken_is_named(coco: Path, capsys: pytest.CaptureFixture) -> None:
    (coco / "pictures" / "3.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as caught:
        gallery(coco)
    assert caught.value.code == 2
    assert "3.png" in capsys.readouterr().err
    assert not (coco / "out" / "index.html").exists()


def test_a_gallery_is_not_overwritten(coco: Path, capsys: pytest.CaptureFixture) -> None:
    gallery(coco, "--count", "1")
    with pytest.raises(SystemExit):
        gallery(coco)
    assert "--overwrite" in capsys.readouterr().err
    (coco / "out" / "picture-777.png").write_bytes(b"of a larger gallery")
    (coco / "out" / "picture-of-mine.png").write_bytes(b"")
    gallery(coco, "--count", "1", "--overwrite")
    names = {"index.html", "picture-001.png", "picture-of-mine.png"}
    assert {path.name for path in (coco / "out").iterdir()} == names


def case() -> tuple[Annotations, DetectionTable]:
    """A picture with a detection of each kind and a miss; boxes apart from each other, of different sizes."""
    boxes = [[40 * k, 100, 40 * k + 30, 130] for k in range(6)]
    annotations = Annotations.from_objects(
        class_names=["a", "b"],
        image_ids=["one"],
        sizes=[[200, 300]],
        images=[0] * 6,
        boxes=boxes,
        labels=[1] * 6,
        ignore=[False, False, False, False, True, False],
    )
    found = [
        (boxes[0], 1),
        (boxes[0], 1),
        (boxes[1], 2),
        ([80, 100, 95, 125], 1),
        ([120, 100, 135, 125], 2),
        (boxes[4], 1),
        ([250, 10, 290, 40], 1),
    ]
    scores = torch.linspace(0.9, 0.6, len(found))
    boxes, labels = torch.tensor([f[0] for f in found]), torch.tensor([f[1] for f in found])
    return annotations, DetectionTable.of([Detections(boxes, scores, labels)], 1)


def test_every_kind_has_its_own_colour_in_a_sheet() -> None:
    annotations, detections = case()
    outcomes = outcomes_from(annotations, detections, 0.5)
    image = torch.full((3, 200, 300), 77, dtype=torch.uint8)
    sheet = np.asarray(draw_sheet(image, 0, annotations, {"run": outcomes}, ["ground truth", "run"]))
    panel = sheet[:230, 370:]  # the run's, without the legend
    for name, (colour, _) in STYLES.items():
        assert (panel == ImageColor.getrgb(colour)).all(2).sum() > 30, name
    nothing = outcomes_from(annotations, detections, 0.95)
    sheet = np.asarray(draw_sheet(image, 0, annotations, {"run": nothing}, ["ground truth", "run"]))
    drawn = {n for n, (c, _) in STYLES.items() if (sheet[:230, 370:] == ImageColor.getrgb(c)).all(2).sum() > 30}
    assert drawn == {"missed"}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (600, 4000), (4000, 3000), (2000, 30), (30, 30)])
def test_sheets_of_pictures_of_every_size(height: int, width: int) -> None:
    annotations, detections = case()
    outcomes = outcomes_from(annotations, detections, 0.5)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    sheet = draw_sheet(image, 0, annotations, {"a": outcomes, "b": outcomes}, ["ground truth", "a" * 99, "b"])
    assert 250 < sheet.height < 1000
    assert 700 < sheet.width < 2000


def test_counts_and_choice() -> None:
    annotations, detections = case()
    assert count_by_picture(annotations, outcomes_from(annotations, detections, 0.5)) == [Counts(1, 5, 4, 2)]
    assert Counts(1, 5, 4).f1 == pytest.approx(2 / 11)
    assert Counts(0, 0, 0).f1 == 1
    good, bad, empty = Counts(3, 0, 0), Counts(0, 3, 3), Counts(0, 0, 0)
    half = Counts(1, 1, 1)
    runs = [[good, good, half, empty, bad], [good, bad, good, empty, good]]
    assert most_different(runs, 3) == [1, 4, 2]
    assert evenly_spaced(10, 3) == [0, 4, 9]
    assert evenly_spaced(2, 5) == [0, 1]
