"""Small networks with data whose channels depend on each other, as those of real networks do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qdqc.ir.core import Node
from qdqc.ir.data import Data
from qdqc.ir.graph import Module
from qdqc.ir.op import Op
from qdqc.ir.types import Elem, TensorType

Floats = npt.NDArray[np.float32]


def network(
    op: Op, x: Sequence[int], weight: Floats, bias: Floats | None = None
) -> tuple[Module, Node[Any]]:
    """x -> op(x, w, b) -> y."""
    module = Module("net", {"": 17})
    held = module.graph.add_input("x", TensorType(Elem.F32, tuple(x)))
    operands = [held, module.add_constant("w", Data.of(weight))]
    if bias is not None:
        operands.append(module.add_constant("b", Data.of(bias)))
    node = module.graph.insert(op, operands, None, ["y"])
    module.graph.set_outputs([node.result])
    return module, node


def correlated(shape: Sequence[int], seed: int = 0, axis: int = 1) -> Floats:
    """Numbers of mean 1 whose channels mix a third as many sources, alike for every seed."""
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(9)
    channels = shape[axis]
    sources = max(1, channels // 3)
    others = [s for i, s in enumerate(shape) if i != axis]
    drawn = rng.normal(size=(*others, sources)) @ mixing.normal(size=(sources, channels))
    noisy = drawn + 0.05 * rng.normal(size=drawn.shape) + 1
    return np.moveaxis(noisy, -1, axis).astype(np.float32)


@pytest.fixture
def net() -> Any:
    return network


@pytest.fixture
def draw() -> Any:
    return correlated
