"""VOC's classes in COCO's list, and the other way round."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from detection.class_names import COCO_NAMES, find_classes
from detection.data.coco import read_coco

VOC = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]

# COCO's numbers of the classes that it spells in another way.
COCO_IDS = {"motorbike": 4, "aeroplane": 5, "sofa": 63, "pottedplant": 64, "diningtable": 67, "tvmonitor": 72}


def test_all_of_vocs_classes_are_among_cocos(data_pack) -> None:
    """The 80 names are those of a file of COCO's own."""
    file = next(Path(data_pack("coco_subset")).glob("annotations/instances_*.json"))
    annotations = read_coco(None, file, bad_boxes="keep").annotations
    coco = annotations.class_names
    assert len(coco) == 80
    places = find_classes(VOC, coco)
    assert None not in places
    assert len(set(places)) == 20
    found = {name: place for name, place in zip(VOC, places, strict=True) if coco[place] != name}
    assert {name: annotations.category_ids[place] for name, place in found.items()} == COCO_IDS
    back = find_classes(coco, VOC)
    assert [back[place] for place in places if place is not None] == list(range(20))
    assert back.count(None) == 60


def test_what_is_not_there_is_none() -> None:
    assert find_classes(["cat", "unicorn", "Cat", "dining  table"], ["diningtable", "cat"]) == [1, None, None, None]
    assert find_classes([], ["cat"]) == []


def test_the_same_spelling_goes_first() -> None:
    assert find_classes(["sofa", "couch"], ["couch", "sofa"]) == [1, 0]
    assert find_classes(["sofa", "couch"], ["sofa"]) == [0, 0]


@given(st.permutations([*VOC, *COCO_NAMES.values(), "dog "]), st.integers(0, 27))
def test_a_list_finds_itself(names: list[str], count: int) -> None:
    assert find_classes(names, names) == list(range(len(names)))
    places = find_classes(names[:count], names[::-1])
    assert places == [len(names) - 1 - at for at in range(len(names))][:count]
