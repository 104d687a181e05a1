"""The cases that onnx gives to backends: each comes in, is printed, goes out and stays the same.

A case is judged against the first of onnxruntime and onnx's reference evaluator that gives the
outputs which the case states; what we export must then give them in the same one. Cases that
neither runs are imported, printed, exported and checked all the same. All of them take about
20 s on one core; ``QDQC_BACKEND_STRIDE=n`` takes each nth of an op type.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase as Case
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedByRuntime
from protos import opset_of

from qdqc.diagnostics import QdqcError
from qdqc.ir.graph import Module
from qdqc.ir.types import OptionalType, SequenceType, TensorType
from qdqc.ir.verify import check
from qdqc.onnx_io.expand import may_expand
from qdqc.onnx_io.exporter import export_onnx
from qdqc.onnx_io.importer import import_onnx
from qdqc.onnx_io.schemas import NEWEST, OLDEST
from qdqc.ops.opaque import Opaque
from qdqc.pipeline.manager import run as run_pipeline
from qdqc.text.parser import parse_module
from qdqc.text.printer import print_module
from qdqc.text.sidecar import tensors

STRIDE = int(os.environ.get("QDQC_BACKEND_STRIDE", "1"))

NOT_READ = {
    "test_not_2d": "it states opset 1, and 7 is the oldest that is read",
    "test_not_3d": "it states opset 1, and 7 is the oldest that is read",
    "test_not_4d": "it states opset 1, and 7 is the oldest that is read",
}
NOT_RUN = {
    f"test_flexattention_{name}": "the reference evaluator does not look outside a nested graph, "
    "where an export puts all constants"
    for name in (
        "causal_mask",
        "prob_mod",
        "relative_positional",
        "score_mod",
        "soft_cap",
    )
}
RANDOM = ("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike")

Run = Callable[[ModelProto, dict[str, Any]], list[Any]]


def with_onnxruntime(model: ModelProto, feed: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source = model.SerializeToString()
    session = ort.InferenceSession(source, options, ["CPUExecutionProvider"], enable_fallback=False)
    return session.run(None, feed)


def with_reference(model: ModelProto, feed: dict[str, Any]) -> list[Any]:
    return list(ReferenceEvaluator(model).run(None, feed))


@dataclass
class Done:
    """A case, and how far it came: ``wrong`` says where it stopped short of what it must do."""

    case: Case
    runner: Run | None = None
    module: Module | None = None
    exported: ModelProto | None = None
    wrong: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Any:
        try:
            yield
        except Exception as error:
            lines = " ".join(str(error).split())
            self.wrong[name] = f"{type(error).__name__}: {lines[:240]}"

    def samples(self) -> list[tuple[dict[str, Any], list[Any]]]:
        names = [value.name for value in self.case.model.graph.input]
        found = []
        for inputs, outputs in self.case.data_sets:
            feed = {n: plain(v) for n, v in zip(names, inputs, strict=True)}
            found.append((feed, [plain(v) for v in outputs]))
        return found

    def compare(self, model: ModelProto, run: Run, *, widened: bool = False) -> None:
        """Whether a model gives the stated outputs; where it is ``widened``, to as many places
        as the halves that the case rounds each of its values to.
        """
        for feed, wanted in self.samples():
            with np.errstate(all="ignore"):  # the reference evaluator works in numpy
                found = run(model, feed)
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted, strict=True):
                places = 2 * half_step(b) if widened else 0.0
                rtol, atol = max(self.case.rtol, places), max(self.case.atol, places)
                assert_same(a, b, rtol, atol)


def half_step(array: Any) -> float:
    """The step from 1 to the next number where these are halves; 0 for all else."""
    dtype = getattr(array, "dtype", None)
    return float(ml_dtypes.finfo(dtype).eps) if dtype in (np.float16, ml_dtypes.bfloat16) else 0.0


def plain(value: Any) -> Any:
    """Numbers and tensors as arrays, sequences as lists of them."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if value is None else np.asarray(value)


def assert_same(found: Any, wanted: Any, rtol: float, atol: float) -> None:
    if wanted is None or isinstance(wanted, list):
        assert type(found) is type(wanted)
        for a, b in zip(found or (), wanted or (), strict=True):
            assert_same(a, b, rtol, atol)
        return
    found = np.asarray(found)
    assert (found.dtype.kind in "OSU") == (wanted.dtype.kind in "OSU")
    if wanted.dtype.kind in "OSU":
        assert found.tolist() == wanted.tolist()
        return
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(found.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol)


def chosen() -> list[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx divides by zero on purpose to state infinities
        cases = collect_testcases(None)
    counts: Counter[str] = Counter()
    kept = []
    for case in cases:
        nodes = case.model.graph.node
        key = nodes[-1].op_type + ("_expanded" if case.name.endswith("_expanded") else "")
        if counts[key] % STRIDE == 0:
            kept.append(case)
        counts[key] += 1
    return kept


def find_runner(done: Done) -> Run | None:
    """What gives the stated outputs; random cases have none."""
    if any(node.op_type in RANDOM for node in done.case.model.graph.node):
        return None
    for run in (with_onnxruntime, with_reference):
        if run is with_reference and done.case.name in NOT_RUN:
            continue
        with contextlib.suppress(Exception):
            done.compare(done.case.model, run)
            return run
    return None


@cache
def imported() -> list[Done]:
    """All cases but those that must not come in, each taken as far as it comes."""
    found = []
    for case in chosen():
        if case.name in NOT_READ:
            continue
        done = Done(case)
        found.append(done)
        done.runner = find_runner(done)
        with done.step("import"):
            done.module = import_onnx(case.model)
            check(done.module)
        if done.module is not None:
            with done.step("export"):
                done.exported = export_onnx(done.module)
                onnx.checker.check_model(done.exported, full_check=True)
    return found


def assert_none_wrong(step: str) -> None:
    wrong = [f"{d.case.name}: {d.wrong[step]}" for d in imported() if step in d.wrong]
    assert not wrong, f"{len(wrong)} cases\n" + "\n".join(wrong[:20])


def test_every_case_comes_in() -> None:
    assert_none_wrong("import")


def test_every_case_goes_out_as_a_valid_model() -> None:
    assert_none_wrong("export")


def test_few_cases_run_nowhere() -> None:
    """So that the tests below can't come to say nothing."""
    runners = Counter(done.runner for done in imported())
    assert runners[with_onnxruntime] * STRIDE > 1300
    assert runners[with_reference] * STRIDE > 250
    assert runners[None] * STRIDE < 200


def test_every_case_gives_the_same_outputs() -> None:
    for done in imported():
        if done.runner is not None and done.exported is not None:
            with done.step("outputs"):
                done.compare(done.exported, done.runner)
    assert_none_wrong("outputs")


def test_every_case_survives_the_text() -> None:
    for done in imported():
        if done.module is None:
            continue
        with done.step("text"):
            text = print_module(done.module)
            held = tensors(done.module)
            again = parse_module(text, resolve=lambda digest, held=held: held[digest].buffer())
            assert print_module(again) == text
            assert export_onnx(again) == done.exported
    assert_none_wrong("text")


def test_every_case_gives_the_same_outputs_after_the_float_passes() -> None:
    """And what onnxruntime runs is known natively, 85 % of it and more."""
    counts: Counter[str] = Counter()
    for done in imported():
        if done.module is None or done.exported is None:
            continue
        with done.step("transform"):
            after = run_pipeline(done.module, "@transform")
            model = export_onnx(after)
            onnx.checker.check_model(model, full_check=True)
            if done.runner is not None:
                done.compare(model, done.runner, widened=True)
            if done.runner is with_onnxruntime:
                opaque = any(isinstance(node.op, Opaque) for node in after.walk())
                counts["opaque" if opaque else "native"] += 1
    total = counts.total()
    print(f"passed {total}, native {counts['native']}, opaque {counts['opaque']}")
    assert_none_wrong("transform")
    assert counts["native"] >= 0.85 * total


def test_no_symbol_that_onnx_invents_reaches_a_type() -> None:
    for done in imported():
        if done.module is not None:
            assert "unk__" not in print_module(done.module, elide=True), done.case.name


def test_types_are_those_that_the_case_states() -> None:
    """The outputs' element types and ranks, and every size that is known."""
    for done in imported():
        if done.module is None:
            continue
        for value, stated in zip(
            done.module.graph.outputs, done.case.model.graph.output, strict=True
        ):
            kind = stated.type.WhichOneof("value")
            wanted = {"sequence_type": SequenceType, "optional_type": OptionalType}
            assert type(value.type) is wanted.get(kind, TensorType), done.case.name
            if not isinstance(value.type, TensorType) or value.type.shape is None:
                continue
            dims = stated.type.tensor_type.shape.dim
            assert len(dims) == len(value.type.shape), done.case.name
            for a, b in zip(value.type.shape, dims, strict=True):
                sizes = isinstance(a, int) and b.HasField("dim_value")
                assert not sizes or a == b.dim_value, done.case.name


def test_what_is_not_read_says_why() -> None:
    cases = [case for case in collect_testcases("Not") if case.name in NOT_READ]
    assert len(cases) == len(NOT_READ)
    for case in cases:
        with pytest.raises(QdqcError, match="written for opset 1, and qdqc reads 7"):
            import_onnx(case.model)


MEANS_SOMETHING_ELSE = {
    "GridSample": "its modes had other names before opset 20",
    "Hardmax": "it flattened its operand before opset 13",
    "LogSoftmax": "it flattened its operand before opset 13",
    "Max": "it did not broadcast before opset 8",
    "Mean": "it did not broadcast before opset 8",
    "Min": "it did not broadcast before opset 8",
    "Softmax": "it flattened its operand before opset 13",
    "Sum": "it did not broadcast before opset 8",
}
INVALID_IN_ONNX = {"MeanVarianceNormalization": range(13, NEWEST + 1)}
"""Opsets at which onnx's own function for an op does not pass onnx's checker."""

RUNS_UP_TO = 26
"""onnxruntime refuses models of newer opsets."""


def one_of_each_op() -> list[Done]:
    """The first case of each op that has a native form, with nothing else around it."""
    found: dict[str, Done] = {}
    for done in imported():
        nodes = done.case.model.graph.node
        native = done.module and not any(isinstance(n.op, Opaque) for n in done.module.walk())
        if len(nodes) == 1 and native and done.exported is not None:
            found.setdefault(nodes[0].op_type, done)
    return list(found.values())


def may_be_written_out(done: Done) -> bool:
    """Whether an opset that lacks the op has other ops for it; the source's opset decides."""
    return done.module is not None and any(may_expand(n) for n in done.module.walk())


def exported_at(module: Module, opset: int) -> ModelProto | None:
    """The model at an opset; None where it is refused, in the words for that."""
    try:
        return export_onnx(module, opset=opset)
    except QdqcError as error:
        if f"opset {opset} can't spell it: " not in str(error):
            raise
    return None


def test_an_opset_is_either_spelt_right_or_refused() -> None:
    """From the lowest on, every opset gives a valid model with equal outputs, or a reason."""
    cases = one_of_each_op()
    assert len(cases) * STRIDE > 120
    for done in cases:
        assert done.module is not None
        assert done.exported is not None
        spelt = []
        for opset in range(OLDEST, NEWEST + 1):
            model = exported_at(done.module, opset)
            if model is None:
                continue
            spelt.append(opset)
            assert opset_of(model) == opset
            if opset in INVALID_IN_ONNX.get(done.case.model.graph.node[0].op_type, ()):
                continue
            with done.step("opset"):
                onnx.checker.check_model(model, full_check=True)
                if done.runner is with_onnxruntime and opset <= RUNS_UP_TO:
                    with contextlib.suppress(NotImplementedByRuntime):
                        done.compare(model, with_onnxruntime)
        if not may_be_written_out(done):
            assert min(spelt) == opset_of(done.exported), done.case.name
    assert_none_wrong("opset")


def test_half_precision_of_each_op_runs() -> None:
    """Mode F16 of each op loads in onnxruntime, with what must stay float32, and comes near."""
    tried = 0
    for done in one_of_each_op():
        if done.runner is not with_onnxruntime or done.module is None:
            continue
        with done.step("half"):
            module = run_pipeline(done.module, "@transform,assign-precision{mode=F16},convert-half")
            model = export_onnx(module)
            tried += any(n.op.name == "cast" for n in module.walk())
            for feed, wanted in done.samples():
                for a, b in zip(with_onnxruntime(model, feed), wanted, strict=True):
                    if getattr(b, "dtype", None) == np.float32 and b.size:
                        near = 4e-3 * max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
                        assert_same(a, b, 4e-3, near)
    assert_none_wrong("half")
    assert tried * STRIDE > 80


def test_the_chosen_opset_is_the_lowest_that_the_checker_accepts() -> None:
    for done in one_of_each_op():
        assert done.exported is not None
        assert done.module is not None
        type = done.case.model.graph.node[0].op_type
        chosen_opset = opset_of(done.exported)
        if chosen_opset == OLDEST or type in MEANS_SOMETHING_ELSE or may_be_written_out(done):
            continue
        with pytest.raises(QdqcError, match="can't spell it") as refused:
            export_onnx(done.module, opset=chosen_opset - 1)
        if "an axis counted from the end" in str(refused.value):
            continue  # the checker does not look at the sign
        older = ModelProto()
        older.CopyFrom(done.exported)
        for entry in older.opset_import:
            entry.version = chosen_opset - 1
        with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
            onnx.checker.check_model(older, full_check=True)
