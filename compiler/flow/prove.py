"""What onnxruntime makes of a model file: what should run in integers, and what does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qdqc.ir.graph import Graph, Module
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.saver import file_bytes, onnx_bytes
from qdqc.ops import CASTS
from qdqc.pipeline.manager import run
from qdqc.quant.placement import Decision
from qdqc.quant.targets.rules import verdicts
from qdqc.quant.targets.target import Target, target_named
from qdqc.report.audit_text import audit_entries, bad_fusion_entries
from qdqc.runtime.audit.audit import Audit, audit
from qdqc.runtime.audit.fusions import BadFusion, bad_fusions
from qdqc.runtime.comparison.check import taken

__all__ = ["Proof", "asked", "proof_of", "prove"]


@dataclass(frozen=True)
class Proof:
    """What a deployed file is: how its nodes run, its size, and fusions that change its numbers.

    ``bytes`` are those of the ``float`` and of the ``deployed`` model.
    """

    audit: Audit
    bytes: Mapping[str, int]
    bad_fusions: Sequence[BadFusion]

    def entries(self) -> dict[str, Any]:
        """The keys ``audit``, ``bytes`` and ``bad_fusions`` of ``--report``."""
        return {
            "audit": audit_entries(self.audit),
            "bytes": dict(self.bytes),
            "bad_fusions": bad_fusion_entries(self.bad_fusions),
        }


def proof_of(
    module: Module,
    reference: Module,
    decisions: Mapping[str, Decision],
    path: Path,
    feeds: Mapping[str, Any],
    runtime: str = "onnxruntime",
) -> Proof:
    """The proof of a lowered ``module`` that stands in the file ``path``.

    ``decisions`` are what was asked for, by the names of nodes. ``feeds`` are a sample for the
    float ``reference``, on which fusions are judged. ``runtime`` is whose kernels are looked at.
    """
    return Proof(
        audit(module, decisions, path, runtime),
        {"float": onnx_bytes(reference), "deployed": file_bytes(path)},
        bad_fusions(path, taken(module, reference, feeds)),
    )


def prove(model: str | Path, target: str = "ort-cpu") -> Audit:
    """How each node of a QDQ model file runs under the target's runtime, and which rule it breaks.

    The file may come from any tool. A product that keeps the rules and runs in float is a finding,
    and one that runs in integers though it breaks more than a preference of the target. Raises
    QdqcError for what can't be read.
    """
    chosen, module = target_named(target), import_onnx(model)
    typed = run(module, "@transform,canonicalize").graph
    decisions = asked(typed, chosen)
    decided = [n for n in typed.nodes() if n.name in decisions]
    places = {place: n.name for n in decided for place in n.loc.names}
    for node in module.walk():  # nodes that were fused into others
        place = next((places[n] for n in node.loc.names if n in places), None)
        if node.name not in decisions and place is not None:
            decisions[node.name] = decisions[place]
    audited = audit(module, decisions, model, chosen.runtime)
    findings = [
        row for row in audited.findings if row.runs == "float" or row.rule not in chosen.preferences
    ]
    return replace(audited, findings=tuple(findings))


def asked(graph: Graph, target: Target) -> dict[str, Decision]:
    """What the types of a module ask for, by the names of nodes: integers where rules are kept.

    Of several rules that a node breaks, one that is but the target's preference comes last.
    """
    light = {rule: rank for rank, rule in enumerate(target.preferences, 1)}
    decisions: dict[str, Decision] = {}
    for node in graph.nodes():
        if isinstance(node.op, CASTS):
            continue
        traits = node.op.quant(*node.operand_types())
        rules = dict(verdicts(node, target))
        broken = {rule: message for rule, message in rules.items() if message is not None}
        rule = min(broken, key=lambda name: light.get(name, 0), default="")
        reason = broken.get(rule) or ("" if rules else "it reads and gives floats")
        decisions[node.name] = Decision(bool(rules) and not rule, traits, False, reason, rule)
    return decisions
