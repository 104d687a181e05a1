"""Work on samples shared among threads or processes, with the results in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from qdqc.calibration.in_order import can_fork, in_processes, in_threads

__all__ = ["ALONE", "Hands"]

ItemT = TypeVar("ItemT")
Found: TypeAlias = Sequence[Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Hands:
    """Who works: ``threads`` of this process, or ``workers`` processes where they are several.

    Processes are forked for a piece of work when its sessions are open; each of these has one
    thread, the caller's. What they find is the same to the bit as what this process would.
    """

    threads: int = 1
    workers: int = 1

    def each(self, action: Callable[[ItemT], Found], items: Sequence[ItemT]) -> Iterator[Found]:
        """What an action gives for each item. The work of a process that dies is done again.

        Raises QdqcError when three have died over the same item.
        """
        if self.workers > 1 and len(items) > 1 and can_fork():
            count = min(self.workers, len(items))
            sent = in_processes(lambda n: _packed(action(items[n])), range(len(items)), count)
            return map(_unpacked, sent)
        if self.threads > 1:
            return in_threads(action, items, self.threads, threading.Event())
        return map(action, items)


ALONE = Hands()


def _packed(results: Found) -> bytes:
    """Arrays by the number of their mapping and their name, in one piece."""
    named = {
        f"{number} {name}": np.ascontiguousarray(array)
        for number, arrays in enumerate(results)
        for name, array in arrays.items()
    }
    return len(results).to_bytes(4, "little") + save(named)


def _unpacked(sent: bytes) -> Found:
    results: list[dict[str, npt.NDArray[Any]]] = [
        {} for _ in range(int.from_bytes(sent[:4], "little"))
    ]
    for key, array in load(sent[4:]).items():
        number, _, name = key.partition(" ")
        results[int(number)][name] = array
    return results
