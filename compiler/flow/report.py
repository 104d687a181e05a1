"""What is known of a deployed model: its accuracy, size, kernels and how it was tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdqc.flow.prove import Proof
from qdqc.flow.unquantized import Unquantized
from qdqc.report.audit_text import render_audit
from qdqc.report.auto_text import render_plan
from qdqc.report.comparison_text import render_comparison, similarity_entries
from qdqc.runtime.audit.audit import Audit
from qdqc.runtime.comparison.compare import Comparison, Similarity
from qdqc.search.auto.plan import AutoPlan
from qdqc.tuning.recipe import Step

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """The figures of a deployment.

    ``comparison`` holds the outputs against float on ``source`` inputs, ``proof`` what a runtime
    makes of the file, ``recipe`` the steps that tuned the weights, ``unquantized`` why nothing was
    quantized, where nothing was, ``plan`` what a search of the best model tried. It prints as a
    table.
    """

    comparison: Comparison
    source: str
    proof: Proof
    recipe: tuple[Step, ...] = ()
    unquantized: Unquantized | None = None
    plan: AutoPlan | None = None

    @property
    def outputs(self) -> Mapping[str, Similarity]:
        """Cosine, euclidean similarity and SQNR in dB of each output, by name."""
        return {row.name: row for row in self.comparison.rows}

    @property
    def audit(self) -> Audit:
        """How each node runs."""
        return self.proof.audit

    def entries(self) -> dict[str, Any]:
        """As JSON has it, with the keys of ``model_deploy --report``."""
        outputs = similarity_entries(self.comparison.rows)
        entries: dict[str, Any] = {"source": self.source, "outputs": outputs}
        if self.unquantized is not None:
            entries["unquantized"] = self.unquantized.entries()
        if self.plan is not None:
            entries["auto"] = self.plan.entries()
        if self.recipe:
            entries["recipe"] = [step.entries() for step in self.recipe]
        return entries | self.proof.entries()

    def __str__(self) -> str:
        sizes = self.proof.bytes
        head = "" if self.unquantized is None else f"{self.unquantized.warning.render()}\n"
        head += "" if self.plan is None else f"{render_plan(self.plan)}\n"
        return (
            f"{head}deployed against float on {self.source} inputs:\n"
            f"{render_comparison(self.comparison, every=True)}\n"
            f"{render_audit(self.proof.audit)}\n"
            f"{sizes['deployed']:,} bytes, float {sizes['float']:,}"
        )
