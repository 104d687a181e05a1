"""Numbers that no preprocessing of pixels makes are doubted, and those that it makes never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdqc.data.fit import InputSpec
from qdqc.data.plausible import implausible
from qdqc.data.preprocess import Preprocess
from qdqc.ir.types import Elem, TensorType

IMAGENET = Preprocess(
    mean=(123.675, 116.28, 103.53), scale=(0.0171, 0.0175, 0.0174), pixel_format="rgb"
)


def spec(preprocess: Preprocess | None, name: str = "x") -> InputSpec:
    return InputSpec(name, TensorType(Elem.F32, (1, 3, 4, 4)), preprocess)


def told(preprocess: Preprocess | None, *arrays: Any) -> list[str]:
    samples = [{"x": np.asarray(a, np.float32)} for a in arrays]
    return [d.message for d in implausible([spec(preprocess)], samples)]


def pixels(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (1, 3, 4, 4)).astype(np.float32)


def made_by(preprocess: Preprocess, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    mean, scale = (np.reshape(v, (1, 3, 1, 1)) for v in (preprocess.mean, preprocess.scale))
    return (image - mean) * scale


STATED = st.builds(
    lambda means, scale: Preprocess(mean=tuple(means), scale=(scale,) * 3),
    st.lists(st.floats(0, 255), min_size=3, max_size=3),
    st.sampled_from([1.0, 1 / 127.5, 1 / 255, 0.0171, 2 / 255]),
)


@settings(max_examples=200)
@given(preprocess=STATED, seed=st.integers(0, 99))
def test_what_the_preprocessing_makes_is_never_doubted(preprocess: Preprocess, seed: int) -> None:
    image = pixels(seed)
    image.flat[:2] = 0, 255
    assert told(preprocess, made_by(preprocess, image)) == []


def test_raw_pixels_are_told() -> None:
    (message,) = told(IMAGENET, pixels())
    assert message.startswith("the data for input 'x' lie in ")
    assert message.endswith("they look like pixels of 0..255 that were not preprocessed")
    assert "mean 123.675,116.28,103.53 and scale 0.0171,0.0175,0.0174" in message


def test_pixels_divided_by_255_are_told() -> None:
    (message,) = told(IMAGENET, pixels() / 255)
    assert message.endswith("they look like pixels divided by 255")


def test_numbers_far_outside_are_told() -> None:
    (message,) = told(IMAGENET, -pixels())
    assert message.endswith("they reach far outside of it")


@pytest.mark.parametrize("preprocess", [None, Preprocess(), Preprocess(channel_format="none")])
def test_an_input_that_states_nothing_is_left_alone(preprocess: Preprocess | None) -> None:
    assert told(preprocess, 1e6 * pixels()) == []


def test_one_odd_sample_of_many_is_enough() -> None:
    right = made_by(IMAGENET, pixels())
    assert told(IMAGENET, right, right, pixels(1))
    assert told(IMAGENET, right, right) == []


def test_no_samples_and_empty_ones_say_nothing() -> None:
    assert told(IMAGENET) == []
    assert told(IMAGENET, np.zeros((0, 3, 4, 4))) == []


def test_each_input_is_judged_by_its_own_preprocessing() -> None:
    left, right = spec(IMAGENET, "left"), spec(Preprocess(), "right")
    samples = [{"left": pixels(), "right": pixels()}]
    (found,) = implausible([left, right], samples)
    assert "'left'" in found.message
    assert "npz and npy data are taken as they are" in found.notes[0]
