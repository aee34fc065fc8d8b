"""What would wait for a GPU, seen on a CPU: nothing in a detector's step, and little in a detection."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from detection import get_detector
from detection.data.samples import scale_picture
from detection.inference.ensemble import Ensemble, Member
from detection.inference.options import InferenceOptions
from detection.models import FasterRCNN, RoIOptions, RPNOptions
from detection.structures import Target

# Numbers that go to the device, or come from it, or decide about a shape.
WAITING = {
    "tensor",
    "as_tensor",
    "new_tensor",
    "item",
    "tolist",
    "numpy",
    "cpu",
    "__bool__",
    "__int__",
    "__float__",
} | {*("nonzero", "argwhere", "masked_select", "unique", "bincount", "where of one", "index of bool")}


class Waits(TorchFunctionMode):
    """Writes down what would make the host wait for a GPU; non-maximum suppression aside, which is torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Callable, types: Any, args: Sequence = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "where" and len(args) == 1:
            name = "where of one"
        if name in ("__getitem__", "__setitem__"):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts):
                name = "index of bool"
        if name in WAITING:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def detector(*, context: bool = False) -> FasterRCNN:
    torch.manual_seed(0)
    return get_detector(
        "resnet18",
        3,
        backbone_options={"width": 4},
        norm="batch",
        anchor_scales=(16, 32),
        rpn=RPNOptions(channels=8, min_size=4, pre_nms_train=100, post_nms_train=20, post_nms_test=20),
        roi=RoIOptions(rois_per_image=8, context=context, score_threshold=0.0),
    )


PICTURES = [torch.randint(256, (3, h, w), dtype=torch.uint8) for h, w in ((64, 80), (60, 75), (40, 90))]
TARGET = Target(torch.tensor([[8.0, 8, 40, 30]]), torch.tensor([2]), torch.tensor([False]))


@pytest.mark.parametrize("context", [False, True])
def test_a_step_waits_for_nothing_but_non_maximum_suppression(context: bool) -> None:
    network = detector(context=context).train()
    with Waits() as waits:
        losses = network(PICTURES, [TARGET] * 3, [1, 2, 3])
        torch.stack(list(losses.values())).sum().backward()
    assert waits.found == []


@pytest.mark.parametrize("context", [False, True])
def test_a_detection_waits_for_the_number_of_its_boxes_alone(context: bool) -> None:
    ensemble = Ensemble([Member(detector(context=context).eval(), 64, 100)], InferenceOptions())
    picture = scale_picture(PICTURES[0], 0, ensemble.views)
    with Waits() as waits:
        assert len(ensemble(picture.images))
    own = [name for name in waits.found if name != "tensor"]  # those of torchvision's NMS of all classes
    assert own == ["nonzero"]
    assert waits.found.count("tensor") <= 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.new_tensor([1.0]),
        lambda x: x[x > 0],
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: torch.where(x > 0),
        lambda x: x.nonzero(),
    ],
)
def test_these_would_be_seen(wait: Callable[[Tensor], Any]) -> None:
    with Waits() as waits:
        wait(torch.ones(3))
    assert len(waits.found) == 1
