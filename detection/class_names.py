"""The same classes in the lists of two data sets, by their names."""

from collections.abc import Sequence

COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""What COCO calls those of PASCAL VOC's classes that it spells in another way; the other 14 are called alike."""


def find_classes(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Where in `known` each of the classes `wanted` is, under the same name or under its other spelling; None: nowhere.

    VOC's class finds COCO's and COCO's finds VOC's; letters and spaces count.
    """
    places = {name: place for place, name in reversed(list(enumerate(known)))}
    by_coco_name = {COCO_NAMES.get(name, name): place for name, place in places.items()}
    return [places.get(name, by_coco_name.get(COCO_NAMES.get(name, name))) for name in wanted]
