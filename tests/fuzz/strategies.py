"""Hypothesis strategies of documents: valid ones, with what a plain reading of them gives, and nearly valid ones."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from .values import change

LARGEST_PICTURE = 10_000  # pixels a side, of valid documents

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
file_stems = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)
scores = st.floats(0, 1)


@st.composite
def boxes_inside(draw: st.DrawFn, width: int, height: int) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) of an area, within a picture."""
    x1, y1 = draw(st.floats(0, width - 0.5)), draw(st.floats(0, height - 0.5))
    return x1, y1, draw(st.floats(x1 + 0.25, width)), draw(st.floats(y1 + 0.25, height))


@st.composite
def coco_documents(draw: st.DrawFn) -> dict[str, Any]:
    """COCO annotation files: ids of any order and size, any names, boxes within their pictures."""
    ids = st.integers(-(2**63), 2**63 - 1)
    image_ids = draw(
        st.lists(ids | st.integers(0, 9), unique=True, max_size=4) | st.lists(texts, unique=True, max_size=4)
    )
    sides = st.integers(1, LARGEST_PICTURE)
    images = [{"id": i, "width": draw(sides), "height": draw(sides), "file_name": draw(texts)} for i in image_ids]
    category_ids = draw(st.lists(ids | st.integers(0, 9), unique=True, min_size=1, max_size=3))
    names = draw(st.lists(texts, unique=True, min_size=len(category_ids), max_size=len(category_ids)))
    categories = [{"id": i, "name": name} for i, name in zip(category_ids, names, strict=True)]
    objects = []
    for number in range(draw(st.integers(0, 5)) if images else 0):
        image = draw(st.sampled_from(images))
        x1, y1, x2, y2 = draw(boxes_inside(image["width"], image["height"]))
        entry: dict[str, Any] = {
            "id": number,
            "image_id": image["id"],
            "category_id": draw(st.sampled_from(category_ids)),
        }
        entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        entry |= draw(
            st.fixed_dictionaries({}, optional={"iscrowd": st.sampled_from([0, 1]), "area": st.floats(0, 1e6)})
        )
        objects.append(entry)
    return {"images": images, "annotations": draw(st.permutations(objects)), "categories": categories}


@st.composite
def coco_results(draw: st.DrawFn, document: dict[str, Any]) -> list[dict[str, Any]]:
    """Detections in the pictures of a COCO annotation file, of its classes."""
    if not document["images"]:
        return []
    numbers, sizes = st.floats(-1e6, 1e6), st.floats(0, 1e6)
    return [
        {
            "image_id": draw(st.sampled_from(document["images"]))["id"],
            "category_id": draw(st.sampled_from(document["categories"]))["id"],
            "bbox": [draw(numbers), draw(numbers), draw(sizes), draw(sizes)],
            "score": draw(scores),
        }
        for _ in range(draw(st.integers(0, 5)))
    ]


@dataclass
class VocDocument:
    """A VOC annotation: size, and objects (name, xmin ymin xmax ymax, difficult), all of them texts."""

    size: tuple[str, str]
    objects: list[tuple[str, list[str], str]]

    def encode(self) -> bytes:
        """The XML file."""
        width, height = self.size
        parts = [f"<size><width>{_escaped(width)}</width><height>{_escaped(height)}</height></size>"]
        for name, corners, difficult in self.objects:
            box = "".join(
                f"<{c}>{_escaped(v)}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            )
            parts.append(
                f"<object><name>{_escaped(name)}</name><difficult>{_escaped(difficult)}</difficult><bndbox>{box}</bndbox></object>"
            )
        return f"<annotation>{''.join(parts)}</annotation>".encode("utf-8", "surrogatepass")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


@st.composite
def voc_documents(draw: st.DrawFn, width: int, height: int) -> VocDocument:
    """Annotations of a picture, boxes within it, one-based and inclusive."""
    objects = []
    for _ in range(draw(st.integers(1, 4))):
        x1, y1, x2, y2 = draw(boxes_inside(width - 1, height - 1))
        corners = [repr(x1 + 1), repr(y1 + 1), repr(x2 + 1), repr(y2 + 1)]
        objects.append((draw(file_stems), corners, draw(st.sampled_from(["0", "1"]))))
    return VocDocument((str(width), str(height)), objects)


@st.composite
def nearly(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """Documents one or two parts of which are something else: NaN, 2**63, a list, gone, twice, a lone surrogate."""
    document, rng = draw(documents), draw(st.randoms(use_true_random=False))
    for _ in range(draw(st.integers(1, 2))):
        document = change(document, rng)
    return document


def json_bytes(document: Any) -> bytes:
    """As Python writes it: NaN and Infinity too."""
    return json.dumps(document).encode()
