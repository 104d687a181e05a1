"""Tensors that methods are tried on: likely ones, and such as break formulas."""

from __future__ import annotations

import numpy as np
import pytest

from qdqc.calibration.statistics import Statistics


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    bell = rng.standard_normal(40_000)
    return {
        "bell": bell,
        "relu": np.maximum(bell, 0),
        "relu6": np.clip(3 * bell, 0, 6),
        "laplace": rng.laplace(size=40_000) - 0.3,
        "negative": -np.abs(bell),
        "offset": bell * 0.01 + 5,
        "one spike": np.append(np.full(5000, 0.7), bell[:50]),
        "all equal": np.full(1000, 7.0),
        "two numbers": np.array([2.0, -3.0]),
        "one huge outlier": np.append(bell, 1e6),
        "denormals": bell * 2.0**-140,
        "tiny": bell * 1e-30,
        "huge": bell * 5e37,
        "integers": rng.integers(-9, 10, 5000).astype(float),
        "indices": rng.integers(0, 30_000, 5000).astype(float),
        "bits": rng.integers(0, 2, 5000).astype(float),
        "one of many": np.append(np.zeros(100_000), 1.0),
    }


ARRAYS = {name: array.astype(np.float32) for name, array in _arrays().items()}


@pytest.fixture(params=list(ARRAYS))
def array(request: pytest.FixtureRequest) -> np.ndarray:
    """Each of the tensors, f32."""
    return ARRAYS[request.param]


@pytest.fixture
def stats(array: np.ndarray) -> Statistics:
    """Its statistics, taken as three samples."""
    out = Statistics()
    for part in np.array_split(array, 3):
        out.update_sample(part)
    return out
