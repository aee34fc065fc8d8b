"""What a detection set costs: worker processes do not copy what they use (pytorch#13246), outlines are not parsed."""

import json
import math
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.data.annotations import Annotations, DetectionDataset
from detection.data.json_columns import read_json
from detection.data.pictures import PictureFiles

PICTURES, EACH = 8_000, 12
MEMORY = Path("/proc/self/smaps_rollup")


def large_set() -> DetectionDataset:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (PICTURES * EACH, 2))
    annotations = Annotations.from_objects(
        class_names=["a", "b"],
        image_ids=list(range(PICTURES)),
        sizes=np.full((PICTURES, 2), 200),
        images=np.repeat(np.arange(PICTURES), EACH),
        boxes=np.concatenate([corners, corners + 50], axis=1),
        labels=rng.integers(1, 3, PICTURES * EACH),
    )
    return DetectionDataset(annotations, PictureFiles([f"/data/train2017/{i:012d}.jpg" for i in range(PICTURES)]))


def written_memory() -> int:
    """Bytes of this process that are no longer shared with the one it was forked from."""
    (line,) = (line for line in MEMORY.read_text().splitlines() if line.startswith("Private_Dirty"))
    return int(line.split()[1]) * 1024


def growth_in_a_worker(use: Callable[[int], Any]) -> int:
    """By how much a forked process grows when it uses every picture."""
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work() -> None:
        for index in range(50):  # what is allocated once
            use(index)
        before = written_memory()
        for index in range(50, PICTURES):
            use(index)
        send.send(written_memory() - before)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    assert receive.poll(60)
    process.join()
    return receive.recv()


@pytest.mark.skipif(not MEMORY.exists(), reason="only Linux tells what is shared")
def test_worker_processes_do_not_copy_the_annotations() -> None:
    dataset = large_set()
    files = dataset.load_image
    assert isinstance(files, PictureFiles)

    def use(index: int) -> None:
        assert files.path(index)
        assert len(dataset.target(index).labels) == EACH
        assert dataset.annotations.sizes[index].sum() == 400
        assert len(dataset)

    # Even the lightest Python objects, a str a picture, are copied as they are used.
    assert growth_in_a_worker(files.paths.__getitem__) > 600e3
    assert growth_in_a_worker(use) < 250e3


def test_a_set_is_sent_to_a_worker_as_arrays() -> None:
    size = len(pickle.dumps(large_set()))
    # Boxes, label, ignore and area of an object; size, offset, id and path of a picture.
    assert size < PICTURES * EACH * (32 + 8 + 1 + 8) + PICTURES * (16 + 8 + 5 + 8 + 40) + 5_000


def test_paths_of_any_form() -> None:
    paths = ["/a.jpg", "", "/ä/漢字.png", "\udcff.jpg", "x" * 300]
    files = pickle.loads(pickle.dumps(PictureFiles(paths)))
    assert files.paths == paths
    assert [files.path(index) for index in range(5)] == paths
    assert PictureFiles([]).paths == []
    with pytest.raises(IndexError):
        files.path(5)


NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
OUTLINES = st.lists(st.lists(NUMBERS, max_size=4), max_size=3)
KEYS = st.sampled_from(["segmentation", "bbox", 'x"segmentation', "segmentation\\", "counts", "size"])
TEXTS = st.sampled_from(['"segmentation": [[1, 2]]', "segmentation", '\\"segmentation":[1]', '"', "\\"]) | st.text(
    max_size=3
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | OUTLINES | st.just(math.inf),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.fixed_dictionaries({"segmentation": OUTLINES | inner, "id": inner})
        | st.fixed_dictionaries({"segmentation": st.fixed_dictionaries({"counts": OUTLINES, "size": OUTLINES})})
    ),
    max_leaves=8,
)


def is_outline(value: Any) -> bool:
    """A polygon, several, or a run-length code."""
    if isinstance(value, list):
        return is_polygon(value) or all(map(is_polygon, value))
    return isinstance(value, dict) and list(value) == ["counts", "size"] and all(map(is_polygon, value.values()))


def is_polygon(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) in (int, float) and math.isfinite(v) for v in value)


def without_outlines(value: Any) -> Any:
    """A plain recursion over what the text is searched for."""
    if isinstance(value, list):
        return [without_outlines(v) for v in value]
    if isinstance(value, dict):
        return {k: None if k == "segmentation" and is_outline(v) else without_outlines(v) for k, v in value.items()}
    return value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.sampled_from([None, 1]))
def test_outlines_and_nothing_else_are_left_out(tmp_path: Path, value: Any, indent: int | None) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, indent=indent))
    assert read_json(path) == without_outlines(value)
