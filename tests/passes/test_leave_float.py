"""leave-float on sizes that samples give, on parts of a named node, and in the whole flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

import qdqc
from qdqc.ir.graph import Module
from qdqc.ir.types import Elem
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import Runner
from qdqc.text.parser import parse_module

SIZED = "f32[1,1,224,224]"
OPEN = "f32[N,1,H,W]"
KERNEL = ", ".join(f"{w:.3f}" for w in np.random.default_rng(1).normal(0, 0.3, 9))


def thin(shape: str = OPEN) -> Module:
    """Two convolutions of one channel, which float does in less time from some size on."""
    text = f"""module @thin {{opsets = {{"" = 17}}}} {{
      const %w : f32[1,1,3,3] = dense[{KERNEL}]
      graph (%x : {shape}) -> (%y) {{
        %a = conv(%x, %w) {{pads = [1, 1, 1, 1], clamp = [0, inf]}} : {shape} loc("/a")
        %y = conv(%a, %w) {{pads = [1, 1, 1, 1]}} : {shape} loc("/y")
      }}
    }}"""
    return parse_module(text, verify=True)


def images(side: int) -> list[dict[str, npt.NDArray[np.float32]]]:
    rng = np.random.default_rng(2)
    return [{"x": rng.normal(0, 1, (1, 1, side, side)).astype(np.float32)} for _ in range(2)]


def integers(module: Module, side: int = 224, **options: bool) -> set[str]:
    """The nodes that the default flow runs in integers."""
    table = qdqc.calibrate(module, images(side), method="max")
    deployed = qdqc.deploy(module, Deployment(**options), table=table)
    return {name for name, decision in deployed.decisions.items() if decision.integer}


def test_sizes_that_types_leave_open_are_those_of_the_samples() -> None:
    assert integers(thin()) == integers(thin(SIZED)) == set()
    assert integers(thin(), 16) == {"a", "y"}, "too little would be saved"
    assert integers(thin(), leave_float=False) == {"a", "y"}


def test_a_table_without_samples_gives_no_sizes() -> None:
    module = thin()
    table = qdqc.calibrate(module, images(224), method="max")
    rows = qdqc.Table(table.rows)
    found = qdqc.deploy(module, table=rows).decisions
    assert all(decision.integer for decision in found.values())
    sized = qdqc.deploy(thin(SIZED), table=rows).decisions
    assert not any(decision.integer for decision in sized.values())


def test_what_stays_float_has_the_numbers_of_float() -> None:
    module, feeds = thin(SIZED), images(224)
    table = qdqc.calibrate(module, feeds, method="max")
    deployed = qdqc.deploy(module, table=table)
    made, wanted = (Runner(m, threads=1).run(feeds[0])["y"] for m in (deployed.module, module))
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)
    assert all("integers would take about" in d.reason for d in deployed.decisions.values())


def test_parts_of_a_node_that_a_qtable_names_keep_its_mode(tmp_path: Path) -> None:
    """A hard_swish is a product of two parts; its neighbours bring it the integers it needs.

    What is elsewhere, behind a tanh, stays float all the same.
    """
    text = f"""module @swish {{
      const %w : f32[1,1,3,3] = dense[{KERNEL}]
      graph (%x : {SIZED} range(-4, 4, 4)) -> (%z) {{
        %a = conv(%x, %w) {{pads = [1, 1, 1, 1]}} : {SIZED} range(-4, 4, 4) loc("/a")
        %h = hard_swish(%a) : {SIZED} range(-0.375, 4, 4) loc("/h")
        %y = conv(%h, %w) {{pads = [1, 1, 1, 1]}} : {SIZED} range(-4, 4, 4) loc("/y")
        %t = tanh(%y) : {SIZED} range(-1, 1, 1) loc("/t")
        %z = conv(%t, %w) {{pads = [1, 1, 1, 1]}} : {SIZED} range(-4, 4, 4) loc("/z")
      }}
    }}"""
    table = tmp_path / "named.qtable"

    def modes(*lines: str) -> dict[str, str | None]:
        table.write_text("".join(f"{line}\n" for line in lines))
        option = f'{{qtable="{table}"}}'
        passes = f"assign-precision{option},decompose-activations,leave-float{option}"
        module = run(parse_module(text, verify=True), passes)
        return {n.name: n.mode for n in module.graph.nodes()}

    parts = ("a", "h_hard_sigmoid", "h", "y")
    assert [modes()[n] for n in (*parts, "z")] == ["F32"] * 5
    assert [modes("h INT8")[n] for n in (*parts, "z")] == ["INT8"] * 4 + ["F32"]
    assert [modes("type:conv INT8")[n] for n in parts] == ["INT8"] * 4, "what is between is faster"


def test_a_qtable_of_all_nodes_leaves_none() -> None:
    model, feeds = thin(SIZED), images(224)
    table = qdqc.calibrate(model, feeds, method="max")
    found = qdqc.deploy(model, table=table, qtable=qdqc.Qtable.of({"*": "INT8"})).decisions
    assert all(decision.integer for decision in found.values())
    alone = qdqc.deploy(model, table=table, qtable=qdqc.Qtable.of({"y": "INT8"})).decisions
    assert {name: decision.integer for name, decision in alone.items()} == {"a": False, "y": True}


def test_integers_come_in_and_go_out_though_the_nodes_are_float(tmp_path: Path) -> None:
    module, feeds = thin(SIZED), images(224)
    table = qdqc.calibrate(module, feeds, method="max")
    deployed = qdqc.deploy(module, Deployment(quant_input=True, quant_output=True), table=table)
    border = (*deployed.module.graph.inputs, *deployed.module.graph.outputs)
    assert {v.tensor.elem for v in border} == {Elem.U8}
    path, _ = deployed.write(tmp_path / "thin.onnx")
    audit = qdqc.prove(path)
    assert len(audit.products("float")) == 2
    assert not audit.products("integer")
