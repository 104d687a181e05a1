"""Inputs whose values are known before the model runs: they become constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qdqc.diagnostics import QdqcError, suggestion
from qdqc.ir.core import Constant, Node, Value
from qdqc.ir.data import Data
from qdqc.ir.graph import Graph, Module
from qdqc.ir.spelling import print_type
from qdqc.ir.types import Array, Elem, TensorType
from qdqc.ops import Identity

__all__ = ["bind_inputs"]


def bind_inputs(module: Module, values: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Put constants in the place of inputs, which are inputs no longer; gives what they hold.

    A single number fills an input of static shape. The simplifying passes then fold what hangs on
    the constants: an If whose condition becomes known is the branch that runs. Raises QdqcError
    for an unknown input, a value that does not fit, and where no input would be left.
    """
    graph, bound = module.graph, dict[str, Array]()
    inputs = {value.name: value for value in graph.inputs}
    for name, given in values.items():
        if name not in inputs:
            known = ", ".join(f"'{n}'" for n in inputs) or "none"
            raise QdqcError(
                f"`bind` names '{name}', which is no input{suggestion(name, inputs)}",
                notes=[f"inputs are {known}"],
            )
        bound[name] = _fitted(inputs[name], given)
    if bound and len(bound) == len(inputs):
        raise QdqcError(
            "`bind` leaves the model no input, so it would compute nothing",
            notes=["bind only inputs that are the same in every run"],
        )
    for name, array in bound.items():
        _bind(graph, inputs[name], array)
    return bound


def _fitted(value: Value, given: npt.ArrayLike) -> Array:
    """The value as an array of the input's type. Raises QdqcError."""
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        raise _misfit(value, "its shape is not known")
    elem, shape = value.type.elem, value.type.shape
    array = np.asarray(given)
    if elem is Elem.STRING or array.dtype.kind not in "biuf":
        raise _misfit(value, "only numbers and true or false can be bound")
    with np.errstate(all="ignore"):
        exact = array.astype(elem.dtype)
    if not np.array_equal(exact.astype(np.float64), array.astype(np.float64), equal_nan=True) and (
        not elem.is_float
    ):
        raise _misfit(value, f"{array.tolist()} is no {elem.text}")
    static = value.type.static_shape
    if array.size == 1 and static is not None and array.shape != static:
        return np.full(static, exact.reshape(-1)[0], exact.dtype)
    fits = len(array.shape) == len(shape) and all(
        not isinstance(d, int) or d == s for d, s in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise _misfit(value, f"the value has shape {list(array.shape)}")
    return exact


def _misfit(value: Value, reason: str) -> QdqcError:
    return QdqcError(
        f"`bind` can't give input '{value.name}' that value: {reason}",
        notes=[f"the input is {print_type(value.type)}; give a number, true or false, or a list"],
    )


def _bind(graph: Graph, value: Value, array: Array) -> None:
    """Let everybody read a constant in place of an input; a graph gives it by an identity."""
    module, name = graph.module, value.name
    value.rename(module.fresh_name(f"{name}_input"))
    is_result = any(use.user is graph for use in value.uses)
    place = module.fresh_name(f"{name}_bound") if is_result else name
    constant = module.add_constant(place, Data.of(array, value.tensor.elem))
    for use in value.uses:
        if isinstance(use.user, Node):
            use.take(constant)
            continue
        given = name if use.user is graph and module.value(name) is None else f"{name}_copy"
        use.take(_copy(use.user, constant, module.fresh_name(given)))
    graph.input_attrs.pop(name, None)
    graph.drop_inputs([value.index])


def _copy(graph: Any, constant: Constant, name: str) -> Value:
    return graph.insert(Identity(), [constant], [constant.type], [name]).result
