"""The IR around each ONNX node before and after every pass that changed it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from qdqc.calibration.table import Table
from qdqc.diagnostics import QdqcError
from qdqc.ir.clone import clone
from qdqc.ir.graph import Module
from qdqc.pipeline.discovery import pipelines
from qdqc.pipeline.instrument import Instrument, PassRun, Where
from qdqc.pipeline.manager import PassManager
from qdqc.pipeline.pass_ import PassContext
from qdqc.pipeline.spec import resolve
from qdqc.quant.placement import Decision
from qdqc.quant.qtable import Qtable
from qdqc.text.printer import print_node

__all__ = ["NODE_LIMIT", "Replay", "Step", "Steps", "replayed"]

NODE_LIMIT = 3000
"""Nodes up to which every pass's changes are kept node by node."""


@dataclass(frozen=True)
class Step:
    """What one pass changed of what stands for an ONNX node: lines with their sign in front."""

    pass_name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Replay:
    """What running the passes again gave: steps by ONNX node, and the placement by node.

    ``refused`` says why there is nothing.
    """

    steps: Mapping[str, list[Step]] = field(default_factory=dict[str, list[Step]])
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    refused: str = ""


class Steps(Instrument):
    """Notes the lines of IR by the ONNX nodes that they stand for, pass by pass."""

    def __init__(self) -> None:
        self.by_place: dict[str, list[Step]] = {}
        self._before: Mapping[str, list[str]] = {}

    def before(self, module: Module, where: Where, ctx: PassContext) -> None:
        self._before = _lines(module)

    def after(self, module: Module, where: Where, run: PassRun, ctx: PassContext) -> None:
        after = _lines(module)
        for place in dict.fromkeys((*self._before, *after)):
            old, new = self._before.get(place, []), after.get(place, [])
            if old != new:
                step = Step(where.pass_.name, _difference(old, new))
                self.by_place.setdefault(place, []).append(step)


def replayed(
    reference: Module, pipeline: str, table: Table | None = None, qtable: Qtable | None = None
) -> Replay:
    """Run the rest of a deployed module's pipeline on its float module again.

    ``table`` and ``qtable`` are those that it was deployed by. Files that the pipeline names must
    stand where they stood.
    """
    done = str(reference.header.get("pipeline", ""))
    if not pipeline or not pipeline.startswith(done):
        return Replay(refused="the quantized model does not say by which passes it was made")
    if sum(1 for _ in reference.walk()) > NODE_LIMIT:
        return Replay(refused=f"changes are shown for models of up to {NODE_LIMIT} nodes")
    steps = Steps()
    try:
        passes = resolve(pipeline.removeprefix(done).lstrip(","), pipelines())
        manager = PassManager(
            passes, instruments=[steps], warn=lambda _: None, table=table, qtable=qtable
        )
        report = manager.run(clone(reference))
    except QdqcError as error:
        return Replay(refused=f"the passes can't run again: {error.diagnostic.message}")
    return Replay(steps.by_place, report.decisions)


def _lines(module: Module) -> dict[str, list[str]]:
    by_place: dict[str, list[str]] = {}
    for node in module.walk():
        if node.graphs:
            continue
        text = print_node(node, elide=True).partition(" loc(")[0]
        for place in node.loc.names:
            by_place.setdefault(place, []).append(text)
    return by_place


def _difference(old: list[str], new: list[str]) -> tuple[str, ...]:
    lines = difflib.unified_diff(old, new, lineterm="", n=len(old) + len(new))
    return tuple(line for line in lines if not line.startswith(("---", "+++", "@@")))
