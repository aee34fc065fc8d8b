"""The coding of boxes against its inverse and torchvision's, coverage against counted pixels."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from detection.models.boxes import MAX_LOG_SCALE, coverage, decode, encode

corner = st.floats(0, 900)
side = st.floats(4, 200)


@st.composite
def box(draw: st.DrawFn) -> list[float]:
    x, y = draw(corner), draw(corner)
    return [x, y, x + draw(side), y + draw(side)]


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corners = torch.rand(count, 2, generator=generator) * 300
    return torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=generator) * 200], dim=1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(box(), box()), min_size=1, max_size=5))
def test_decode_is_the_inverse_of_encode(pairs: list[tuple[list[float], list[float]]]):
    boxes, references = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    torch.testing.assert_close(decode(encode(boxes, references), references), boxes, rtol=1e-9, atol=1e-9)


def test_agrees_with_torchvisions_coder():
    generator = torch.Generator().manual_seed(0)
    boxes, references = random_boxes(50, generator), random_boxes(50, generator)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(encode(boxes, references), coder.encode_single(boxes, references))
    deltas = torch.randn(50, 3, 4, generator=generator) * 2  # class-wise, some beyond the bound
    theirs = coder.decode_single(deltas.flatten(1), references)
    torch.testing.assert_close(decode(deltas, references[:, None]), theirs.view(50, 3, 4))


def test_closed_form_and_bound():
    reference = torch.tensor([10.0, 20.0, 30.0, 60.0])
    expected = torch.tensor([0.5, -0.25, math.log(2), math.log(0.5)])
    torch.testing.assert_close(encode(torch.tensor([10.0, 20.0, 50.0, 40.0]), reference), expected)
    wild = decode(torch.tensor([0.0, 0.0, 1e4, 0.0]), reference)
    torch.testing.assert_close(wild[2] - wild[0], torch.tensor(20 * 1000 / 16))
    assert math.isclose(MAX_LOG_SCALE, math.log(62.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=8, max_size=8))
def test_coverage_counts_pixels(numbers: list[int]):
    def pixels(b: list[int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}

    x, y, width, height = numbers[:4]
    first = [x, y, x + width + 1, y + height + 1]
    x, y, width, height = numbers[4:]
    second = [x, y, x + width, y + height]
    expected = len(pixels(first) & pixels(second)) / len(pixels(first))
    result = coverage(torch.tensor([first]).double(), torch.tensor([second]).double())
    assert result.shape == (1, 1)
    assert math.isclose(result.item(), expected)
