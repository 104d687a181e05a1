"""Mean and scale that look like a known mistake are named, and those in use never are."""

from __future__ import annotations

import pytest

from qdqc.data.pixel_range import doubtful_numbers
from qdqc.data.preprocess import Preprocess

STD = (58.395, 57.12, 57.375)
MEAN = (123.675, 116.28, 103.53)
UNIT_MEAN, UNIT_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        (None, None),
        ((0.0,), (1.0,)),
        ((0.0,), (1 / 255,)),
        ((127.5,), (1 / 127.5,)),
        ((128.0,), (2 / 255,)),
        ((103.94, 116.78, 123.68), (1.0,)),
        ((103.94, 116.78, 123.68), (0.017,)),
        (MEAN, tuple(1 / s for s in STD)),
    ],
)
def test_what_networks_are_trained_on_is_not_doubted(
    mean: tuple[float, ...] | None, scale: tuple[float, ...] | None
) -> None:
    assert doubtful_numbers("x", Preprocess(mean=mean, scale=scale)) is None


SWAPPED = "mean and scale look swapped"
INVERSE = "scale looks like the standard deviation, where its inverse is wanted"
UNIT = "they look like mean and scale of pixels of 0..1"


@pytest.mark.parametrize(
    ("mean", "scale", "what", "right"),
    [
        ((0.0078125,), (127.5,), SWAPPED, "`mean` 127.5 and `scale` 0.007812"),
        ((0.0171, 0.0175, 0.0174), MEAN, SWAPPED, "`scale` 0.0171,0.0175,0.0174"),
        (MEAN, STD, INVERSE, "`mean` 123.7,116.3,103.5 and `scale` 0.01712,0.01751,0.01743"),
        ((0.0,), (255.0,), INVERSE, "`scale` 0.003922"),
        (UNIT_MEAN, UNIT_STD, UNIT, "`mean` 123.7,116.3,103.5 and `scale` 0.01712,0.01751"),
        (UNIT_MEAN, tuple(1 / s for s in UNIT_STD), UNIT, "`scale` 0.01712,0.01751,0.01743"),
        ((0.5,), (0.5,), UNIT, "`mean` 127.5 and `scale` 0.007843"),
        (MEAN, UNIT_STD, UNIT, "`scale` 0.01712"),
        ((-127.5,), (0.0078,), "the mean is none of pixels of 0..255", "y = "),
        ((127.5,), (0.0,), "no network is trained on that", "y = "),
    ],
)
def test_each_mistake_is_named_with_what_may_be_right(
    mean: tuple[float, ...], scale: tuple[float, ...], what: str, right: str
) -> None:
    doubt = doubtful_numbers("x", Preprocess(mean=mean, scale=scale))
    assert doubt is not None
    assert doubt.message.endswith(f"for input 'x': {what}")
    assert right in doubt.notes[0]
