"""Bad input of the third kind: annotation files and files of detections."""

import math
from typing import Any

from bad_inputs import Kind, Place

ANNOTATIONS: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.png", "height": 64, "width": 64}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    "categories": [{"id": 3, "name": "cat"}],
}
DETECTION: dict[str, Any] = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "score": 0.5}


def found(name: str, content: Any, message: str, truth: Any = ANNOTATIONS) -> Kind:
    """A results file, or an annotation file, that `score_detections` refuses."""

    def arguments(place: Place) -> list[Any]:
        annotations, detections = place.write("truth.json", truth), place.write("found.json", content)
        return ["--annotations", annotations, "--detections", detections, "--metric", "coco"]

    return Kind(name, "score_detections", arguments, message)


def detection(name: str, message: str, **values: Any) -> Kind:
    """A results file with one wrong entry."""
    return found(name, [DETECTION, DETECTION | values], f"HERE/found.json: detection number 2: {message}")


def truth(name: str, message: str, content: Any = None, **values: Any) -> Kind:
    """An annotation file with something wrong."""
    return found(name, [], f"HERE/truth.json: {message}", ANNOTATIONS | values if content is None else content)


def image(**values: Any) -> dict[str, Any]:
    """The images of an annotation file, of which one is so."""
    return {"images": [ANNOTATIONS["images"][0] | values]}


def annotation(**values: Any) -> dict[str, Any]:
    """The objects of an annotation file, of which one is so."""
    return {"annotations": [ANNOTATIONS["annotations"][0] | values]}


NO_LIST = "HERE/found.json: not a JSON list of detections, as a COCO results file is: name such a file"
NO_JSON = "HERE/found.json: not a JSON file that can be read (...): mend it or get it again"
DEEP = "[" * 10_000

KINDS = [
    detection(
        "a box that is not a number", "'bbox' is [1, nan, 9, 9], not finite numbers: mend it", bbox=[1, math.nan, 9, 9]
    ),
    detection("a box without end", "'bbox' is [1, 1, inf, 9], not finite numbers: mend it", bbox=[1, 1, math.inf, 9]),
    detection(
        "a box of negative size: mend it or leave the detection out",
        "box [1, 1, -9, 9] has a negative size: mend it or leave the detection out",
        bbox=[1, 1, -9, 9],
    ),
    detection(
        "a box as far as a galaxy",
        "box [1e+300, ...] reaches further than 1,000,000,000 pixels: mend it or leave the detection out",
        bbox=[1e300, 1, 9, 9],
    ),
    detection("a box of three numbers", "'bbox' is [1, 1, 9], not a list of 4 numbers: mend it", bbox=[1, 1, 9]),
    detection("a box as a text", "'bbox' is '1 1 9 9', not a list of 4 numbers: mend it", bbox="1 1 9 9"),
    detection("a corner of 400 digits", "'bbox' is [1..., not finite numbers: mend it", bbox=[10**400, 1, 9, 9]),
    detection("a score that is not a number", "'score' is nan, not finite numbers: mend it", score=math.nan),
    detection("a score as a text", "'score' is 'high', not finite numbers: mend it", score="high"),
    detection(
        "a picture's id of 2^63",
        f"image_id {2**63} is not listed in the annotations (the only one of 2)",
        image_id=2**63,
    ),
    detection(
        "a picture's id of 2^64",
        "'image_id' is 1.8446744073709552e+19, not a whole number or a string of at most 64 bits: mend it",
        image_id=2**64,
    ),
    detection("a picture's id as a text", "image_id '1' is not listed ...; ids are numbers there", image_id="1"),
    detection(
        "a picture's id as a fraction", "'image_id' is 1.5, not a whole number or a string: mend it", image_id=1.5
    ),
    detection("a picture's id as truth", "'image_id' is True, not a whole number or a string: mend it", image_id=True),
    detection(
        "a negative class", "category_id -3 is not listed in the annotations (the only one of 2)", category_id=-3
    ),
    detection("no class", "'category_id' is None, not a whole number or a string: mend it", category_id=None),
    found("a list of numbers", [1], "HERE/found.json: detection number 1 is 1, not an object: mend or remove it"),
    found("annotations for detections", ANNOTATIONS, NO_LIST),
    found("null for detections", "null", NO_LIST),
    found("10,000 levels of JSON", DEEP, "HERE/found.json: nested too deep to be read: mend it or get it again"),
    found(
        "10,000 levels in an entry",
        f'[{{"image_id": {DEEP}',
        "HERE/found.json: nested too deep to be read: mend it or get it again",
    ),
    found("an empty file", "", NO_JSON),
    found("JSON cut off", '[{"image_id": 1, "categ', NO_JSON),
    found("JSON lines", '{"image_id": 1}\n{"image_id": 1}\n', "HERE/found.json: not a JSON ..."),
    found("JSON in UTF-16", "[]".encode("utf-16"), NO_JSON),
    found("JSON after a byte order mark", b"\xef\xbb\xbf[]", NO_JSON),
    found("zero bytes at the end", b"[]" + bytes(9), NO_JSON),
    truth("10,000 levels of annotations", "nested too deep to be read: mend it or get it again", DEEP),
    truth(
        "annotations that are a number",
        "not a COCO annotation file (an object with images, annotations and categories)",
        "NaN",
    ),
    truth("no images", "'images' is not a list: name a file of annotations", images=None),
    truth("images by name", "'images' is not a list: name a file of annotations", images={}),
    truth("a picture twice", "image id 1 occurs twice: remove or change one", images=ANNOTATIONS["images"] * 2),
    truth(
        "a class twice", "category id 3 occurs twice: remove or change one", categories=ANNOTATIONS["categories"] * 2
    ),
    truth(
        "a class's name twice",
        "category name cat occurs twice: remove or change one",
        categories=[{"id": 3, "name": "cat"}, {"id": 4, "name": "cat"}],
    ),
    truth(
        "an object twice",
        "annotation id 1 occurs twice: remove or change one",
        annotations=ANNOTATIONS["annotations"] * 2,
    ),
    truth(
        "ids of two kinds",
        "some image ids are numbers and some are strings: write them alike",
        images=[*ANNOTATIONS["images"], ANNOTATIONS["images"][0] | {"id": "2"}],
    ),
    truth(
        "a picture of no height", "image 1 has the size 64x0: give its width and height in pixels", **image(height=0)
    ),
    truth(
        "a picture of negative width",
        "image 1 has the size -5x64: give its width and height in pixels",
        **image(width=-5),
    ),
    truth(
        "a height that is not a number",
        "image 1: 'height' is nan, not finite numbers: mend it",
        **image(height=math.nan),
    ),
    truth(
        "an object of no picture",
        "annotation 1: image_id 7 is not listed in the annotations: mend it, or list it there",
        **annotation(image_id=7),
    ),
    truth(
        "an object of no class",
        "annotation 1: category_id 7 is not listed in the annotations: mend it, or list it there",
        **annotation(category_id=7),
    ),
    truth(
        "an area that is not a number",
        "annotation 1: 'area' is nan, not finite numbers: mend it",
        **annotation(area=math.nan),
    ),
    truth(
        "a crowd that is a text",
        "annotation 1: 'iscrowd' is 'yes', not finite numbers: mend it",
        **annotation(iscrowd="yes"),
    ),
    truth(
        "a class without a name",
        "category 3: 'name' is None, not a string: mend it",
        categories=[{"id": 3, "name": None}],
    ),
    Kind(
        "detections from a device",
        "score_detections",
        lambda p: [
            "--annotations",
            p.write("truth.json", ANNOTATIONS),
            "--detections",
            "/dev/zero",
            "--metric",
            "coco",
        ],
        "/dev/zero: is no file: name a JSON file",
    ),
    Kind(
        "runs of one name",
        "analyse_errors",
        lambda p: [
            "--annotations",
            p.write("truth.json", ANNOTATIONS),
            "--detections",
            p.write("found.json", []),
            p.here / "found.json",
            "--output",
            p.here / "out",
        ],
        "two runs are called found: give each its own with --names",
    ),
    Kind(
        "fewer names than runs",
        "detection_gallery",
        lambda p: [
            "--annotations",
            p.shared / "voc/VOC2007",
            "--detections",
            p.here,
            p.here,
            "--names",
            "one",
            "--output",
            p.here / "out",
        ],
        "--names: 1 for 2 run(s); give one for each",
    ),
    Kind(
        "a model that is none",
        "compare_detectors",
        lambda p: ["--models", "{a: /nowhere}", "--output", p.here / "out"],
        "...",
    ),
]
