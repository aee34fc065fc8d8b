"""Writes tide.json: what the authors' package `tidecv` 1.0.1 says of the cases of tide_cases.py.

It is no dependency of the tests, as it needs OpenCV, pandas and seaborn for its plots. To write the file anew:
`pip install --no-deps tidecv==1.0.1`, then `python tests/golden/make_tide.py`; stand-ins take the place of the three.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from unittest.mock import MagicMock

from tide_cases import CLASSES, SEEDS, tide_case

for name in ("cv2", "pandas", "seaborn", "appdirs"):
    sys.modules.setdefault(name, MagicMock())

from tidecv import TIDE, Data  # noqa: E402
from tidecv.errors.main_errors import FalseNegativeError, FalsePositiveError  # noqa: E402

TYPES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


def numbers(seed: int) -> dict:
    """AP and dAPs, means and by class; APs by class are those after mending, null where nothing is left."""
    annotations, detections = tide_case(seed)
    truth, found = Data("truth"), Data("found")
    for image in range(len(annotations)):
        truth.add_image(image, str(image))
        found.add_image(image, str(image))
    columns = (annotations.images, annotations.labels, annotations.boxes, annotations.ignore)
    for image, label, (x1, y1, x2, y2), ignore in zip(*(c.tolist() for c in columns), strict=True):
        add = truth.add_ignore_region if ignore else truth.add_ground_truth
        add(image, label, [x1, y1, x2 - x1, y2 - y1])
    for image, each in enumerate(detections):
        rows = zip(each.labels.tolist(), each.scores.tolist(), each.boxes.tolist(), strict=True)
        for label, score, (x1, y1, x2, y2) in rows:
            found.add_detection(image, label, score, [x1, y1, x2 - x1, y2 - y1])
    run = TIDE().evaluate(truth, found, mode=TIDE.BOX)
    mended = {TYPES[e.short_name]: run.fix_errors(lambda x, e=e: isinstance(x, e)) for e in TIDE._error_types}
    mended["false positives"] = run.fix_errors(transform=FalsePositiveError.fix)
    mended["false negatives"] = run.fix_errors(false_neg_dict=run.false_negatives)
    special = run.fix_special_errors()
    return {
        "ap": run.ap,
        "lost": {TYPES[e.short_name]: value for e, value in run.fix_main_errors().items()},
        "special": {
            "false positives": special[FalsePositiveError],
            "false negatives": special[FalseNegativeError],
        },
        "per_class": by_class(run.ap_data),
        "mended": {name: by_class(data) for name, data in mended.items()},
        "counts": {TYPES[e.short_name]: len(errors) for e, errors in run.error_dict.items()},
    }


def by_class(data) -> list:
    objects = defaultdict(lambda: None, data.objs)
    there = [objects[label] for label in range(1, CLASSES + 1)]
    return [None if each is None or each.is_empty() else each.get_ap() for each in there]


if __name__ == "__main__":
    lines = [f'"{seed}": {json.dumps(numbers(seed))}' for seed in SEEDS]
    (Path(__file__).parent / "tide.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
