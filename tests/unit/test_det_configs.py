"""configs/det: as COCO's, but for the data."""

from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
SPLITS = {"name": "det", "train_split": "train+val1", "test_split": "val2"}


@pytest.mark.parametrize("name", ["resnet101", "resnet101_context"])
def test_det_is_trained_as_coco(name: str) -> None:
    det, coco = (yaml.safe_load((CONFIGS / data / f"{name}.yaml").read_text()) for data in ("det", "coco"))
    coco.pop("expected")  # the paper's numbers are with refinement, context and several scales
    assert det == coco | {"data": coco["data"] | SPLITS}
