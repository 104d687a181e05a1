"""Samples that a Python program gives: an iterable, or the function ``dataset`` of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from qdqc.data.bad_samples import BadSamples
from qdqc.data.fit import InputSpec, Sample, fit_arrays, headers_of
from qdqc.diagnostics import QdqcError
from qdqc.user_files import failed, is_users, loaded, summary

__all__ = ["Given", "samples_of_script", "stream"]

Given: TypeAlias = Iterable[Mapping[str, Any]]
"""Dicts of one array for each input of the model."""

_WHAT = "the data set"
_EXAMPLE = "def dataset(): yield {'input': array} makes a data set"


def stream(
    samples: Given, specs: tuple[InputSpec, ...], limit: int, bad: BadSamples, file: str = ""
) -> Iterator[Sample]:
    """Samples as the model takes them, at most ``limit`` of them where it is not 0.

    Each is checked as it comes; ``file`` is what made them. Raises QdqcError for one that does
    not fit, and for none at all.
    """
    given = 0
    for number, sample in enumerate(samples):
        where = f"{file}, sample {number}" if file else f"sample {number}"
        for fitted in bad.tried(lambda s=sample, w=where: _fitted(s, specs, w)) or ():
            if limit and given >= limit:
                return
            yield fitted
            given += 1
    if not given:
        raise QdqcError(
            "no calibration data: the given samples are empty",
            file=file or None,
            notes=["an iterator that has been used up gives nothing; give a list"],
        )


def _fitted(sample: Any, specs: tuple[InputSpec, ...], where: str) -> list[Sample]:
    """The rows of a sample that a user made: one or several runs of the model."""
    if not isinstance(sample, Mapping):
        kind = type(sample).__name__
        raise QdqcError(
            f"a sample is a {kind}, but a dict of an array for each input is wanted",
            file=where,
            notes=[_EXAMPLE],
        )
    try:
        given = {name: np.asarray(array) for name, array in sample.items()}
    except Exception as error:
        message = f"a sample can't be taken: {summary(error)}"
        raise QdqcError(message, file=where, notes=[_EXAMPLE]) from error
    odd = next((n for n in given if not isinstance(n, str)), None)
    if odd is not None:
        raise QdqcError(f"{odd!r} is no name of an input", file=where, notes=[_EXAMPLE])
    cut = fit_arrays(specs, headers_of(given), where)
    arrays = {n: given[n] for n in cut.keys.values()}
    return [cut.take(arrays, index) for index in range(cut.count)]


def samples_of_script(path: Path) -> Callable[[], Given]:
    """What gives the samples of a Python file anew each time: its function ``dataset``.

    ``dataset()`` returns or yields dicts of arrays; an object with ``__len__`` and
    ``__getitem__`` does as well. Raises QdqcError, with the line of the user's file, for
    whatever goes wrong in it.
    """
    module = loaded(path, _WHAT)
    function = getattr(module, "dataset", None)
    if not callable(function):
        raise QdqcError("it has no function 'dataset'", file=str(path), notes=[_EXAMPLE])

    def samples() -> Iterator[Mapping[str, Any]]:
        try:
            result: Any = function()
            yield from result if isinstance(result, Iterable) else _indexed(result, path)
        except GeneratorExit:
            raise  # nobody wants more
        except BaseException as error:
            if not is_users(error):
                raise
            raise failed(path, error, _WHAT) from error

    return samples


def _indexed(dataset: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    """The samples one at a time, each made when it is asked for."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise QdqcError(
            f"its dataset() gives a {type(dataset).__name__}, which holds no samples",
            file=str(path),
            notes=[_EXAMPLE],
        )
    return (dataset[i] for i in range(len(dataset)))
