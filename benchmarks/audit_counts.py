"""The audit's count of integer products, beside a straight count in onnxruntime's own file.

    python benchmarks/audit_counts.py [--random 200] [--zoo]

Every network is deployed in INT8, DYN8, W8, W4 and F16, and taken through onnxruntime's own
quantization in eight forms: QDQ with u8 and i8 activations, per tensor and per channel, QOperator
with i8 and u8 weights, and dynamic. The straight count opens each file under onnxruntime, lets it
write the model that it runs, and counts kernels by their type; nothing of the audit is in it.
``--zoo`` takes the real models of the assets too. Ends with 1 where a count differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from assets import DIGITS, ROOT, assets_folder
from markdown import print_table
from naive_qdq import TRAPS
from ort_quantizer import Sample, Samples

__all__ = ["FORMS", "MODES", "Source", "counted", "forms", "main", "straight"]

INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearMatMul",
    }
)
FLOAT = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM"}
) | {"MatMul", "RNN"}
MODES = ("int8", "dyn8", "w8", "w4", "f16")
_INT8_SUMS = 4
"""The accuracy level at which MatMulNBits multiplies integers."""

_SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "v4_det": {"x": (1, 3, 320, 320)},
    "v4_rec": {"x": (1, 3, 48, 160)},
    "v2_cls": {"x": (1, 3, 48, 192)},
    "vad6": {"input": (1, 576)},
    "vad6_op15": {"input": (1, 576)},
}
"""Sizes that real models' inputs need; symbols are 1 elsewhere."""

_RATE = 16000
"""What an integer input of a real model is, if it is one number: samples a second."""


@dataclass(frozen=True)
class Source:
    """A float model, in memory or in a file, with samples of its inputs."""

    name: str
    model: onnx.ModelProto | Path
    samples: list[Sample]


@dataclass(frozen=True)
class Row:
    """Products that run in integers and in float: straight from the file, and by the audit."""

    group: str
    name: str
    straight: tuple[int, int]
    audited: tuple[int, int]


def straight(path: Path) -> tuple[int, int]:
    """Kernels that multiply integers, and those that multiply floats, in onnxruntime's file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(out)
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        kernels = list(_nodes(onnx.load(out, load_external_data=False).graph))
    integer = sum(_is_integer(node) for node in kernels)
    products = sum(n.op_type in INTEGER | FLOAT | {"MatMulNBits"} for n in kernels)
    return integer, products - integer


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _is_integer(node: onnx.NodeProto) -> bool:
    levels = [a.i for a in node.attribute if a.name == "accuracy_level"]
    return node.op_type in INTEGER or (node.op_type == "MatMulNBits" and levels == [_INT8_SUMS])


def counted(group: str, path: Path) -> Row:
    """A file by both counts."""
    import qdqc

    audit = qdqc.prove(path)
    products = len(audit.products("integer")), len(audit.products("float"))
    return Row(group, path.stem, straight(path), products)


def deployed(source: Source, folder: Path, modes: Sequence[str] = MODES) -> Iterator[Row]:
    """What this project makes of a network, and what it says of it when it deploys it."""
    import qdqc

    for mode in modes:
        path = folder / f"{source.name}_{mode}.onnx"
        made = qdqc.quantize(source.model, source.samples, mode=mode)
        onnx.save(made.model, path)
        row = counted(f"qdqc {mode}", path)
        said = made.report.audit
        yield row
        products = len(said.products("integer")), len(said.products("float"))
        yield Row(f"qdqc {mode}, as deployed", row.name, row.straight, products)


FORMS: dict[str, dict[str, Any] | None] = {
    "QDQ u8 i8": {"qdq": True, "signed": False, "weights": True, "per_channel": False},
    "QDQ u8 i8 per channel": {"qdq": True, "signed": False, "weights": True, "per_channel": True},
    "QDQ i8 i8": {"qdq": True, "signed": True, "weights": True, "per_channel": False},
    "QDQ i8 i8 per channel": {"qdq": True, "signed": True, "weights": True, "per_channel": True},
    "QOperator u8 i8": {"qdq": False, "signed": False, "weights": True, "per_channel": False},
    "QOperator u8 u8": {"qdq": False, "signed": False, "weights": False, "per_channel": False},
    "dynamic u8": {"weights": False, "per_channel": False},
    "dynamic i8 per channel": {"weights": True, "per_channel": True},
}
"""Forms of onnxruntime's own quantization; ``signed`` activations, ``weights`` that are signed."""


def forms(source: Source, folder: Path, chosen: Sequence[str] = tuple(FORMS)) -> Iterator[Path]:
    """The files that onnxruntime's own tools make of a network, where they can."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)
    given, model = folder / "given.onnx", folder / f"{source.name}_float.onnx"
    proto = onnx.load(source.model) if isinstance(source.model, Path) else source.model
    onnx.save(proto, given)
    quant_pre_process(given, model, skip_symbolic_shape=True)
    kinds = {True: QuantType.QInt8, False: QuantType.QUInt8}
    for name in chosen:
        form, path = FORMS[name] or {}, folder / f"{source.name} {name}.onnx"
        more = {"weight_type": kinds[form["weights"]], "per_channel": form["per_channel"]}
        try:
            if "qdq" not in form:
                quantize_dynamic(model, path, **more)
            else:
                more["quant_format"] = QuantFormat.QDQ if form["qdq"] else QuantFormat.QOperator
                more["activation_type"] = kinds[form["signed"]]
                quantize_static(model, path, Samples(source.samples), **more)
            straight(path)
        except Exception as error:
            print(f"onnxruntime can't make {path.stem}: {str(error)[:100]}", file=sys.stderr)
            continue
        yield path


def own_networks() -> Iterator[Source]:
    """Networks of the tests and of the examples."""
    golden = _module("tests/golden/test_golden.py")
    rng = np.random.default_rng(0)
    for name, make in golden.MODELS.items():
        model = make()
        yield Source(name, model, _noise(model, rng))
    digits = DIGITS / "digits.onnx"
    yield Source("digits", digits, _noise(onnx.load(digits), rng))
    for index, make in enumerate(TRAPS.values()):
        trap = make()
        yield Source(f"trap{index}", trap.original, [{"x": trap.x}])


def random_networks(count: int) -> list[Source]:
    """Networks that the tests draw: of images and of tokens, in turn."""
    tests = _module("tests/test_random_networks.py")
    sources: list[Source] = []
    kinds = {"image": tests.image_networks(), "tokens": tests.token_networks()}
    for kind, networks in kinds.items():
        for index, model in enumerate(_drawn(networks, -(-count // len(kinds)))):
            sources.append(Source(f"{kind}{index}", model, tests.samples_of(model)[:2]))
    return sources


def _drawn(networks: Any, count: int) -> list[onnx.ModelProto]:
    from hypothesis import HealthCheck, given, settings

    drawn: list[onnx.ModelProto] = []

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(model=networks)
    def draw(model: onnx.ModelProto) -> None:
        drawn.append(model)

    draw()
    return drawn


def zoo_networks() -> Iterator[Source]:
    """The real models of the assets, on noise of their inputs' sizes."""
    assets = assets_folder("zoo/models")
    if assets is None:
        return
    rng = np.random.default_rng(0)
    files = [*(assets / "zoo" / "models").glob("*.onnx"), *(assets / "models").glob("*.onnx")]
    for path in sorted(files):
        model = onnx.load(path)
        yield Source(path.stem, path, _noise(model, rng, _SIZES.get(path.stem, {})))


def _noise(
    model: onnx.ModelProto,
    rng: np.random.Generator,
    given: Mapping[str, tuple[int, ...]] = {},
) -> list[Sample]:
    weights = {t.name for t in model.graph.initializer}
    sample: dict[str, Any] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        type_ = value.type.tensor_type
        sizes = given.get(value.name, tuple(d.dim_value or 1 for d in type_.shape.dim))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(type_.elem_type)
        whole = np.full(sizes, 1 if sizes else _RATE).astype(dtype)
        made = rng.standard_normal(sizes).astype(dtype) if dtype.kind == "f" else whole
        sample[value.name] = np.asarray(made)
    return [sample, sample]


def _module(path: str) -> ModuleType:
    """A file of the tests as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main(argv: Sequence[str] | None = None) -> int:
    """Count in every file both ways and print the table; 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=200, help="random networks (default: 200)")
    parser.add_argument("--zoo", action="store_true", help="the assets' real models as well")
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rows = [row for source in own_networks() for row in _rows(source, MODES, list(FORMS))]
    for source in zoo_networks() if args.zoo else ():
        rows += _rows(source, MODES, list(FORMS), group="zoo, ")
    for index, source in enumerate(random_networks(args.random)):
        mode = MODES[index % len(MODES)]
        peers = [list(FORMS)[index // 4 % len(FORMS)]] if index % 4 == 0 else []
        rows += _rows(source, [mode], peers, group="random, ")
    return _shown(rows)


def _rows(source: Source, modes: Sequence[str], peers: Sequence[str], group: str = "") -> list[Row]:
    rows: list[Row] = []
    tries: list[Callable[[Path], Iterator[Row]]] = [
        lambda folder, mode=mode: deployed(source, folder, [mode]) for mode in modes
    ]
    tries.append(
        lambda folder: (
            counted(f"onnxruntime {path.stem.partition(' ')[2]}", path)
            for path in forms(source, folder, tuple(peers))
        )
    )
    for attempt in tries:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows += attempt(Path(folder))
            except Exception as error:
                print(f"left out {source.name}: {str(error)[:200]}", file=sys.stderr)
    return [Row(group + r.group, r.name, r.straight, r.audited) for r in rows]


def _shown(rows: Sequence[Row]) -> int:
    table: list[list[object]] = []
    for group in dict.fromkeys(row.group for row in rows):
        chosen = [row for row in rows if row.group == group]
        sums: Counter[str] = Counter(files=len(chosen))
        for row in chosen:
            sums.update(integer=row.straight[0], float=row.straight[1])
            sums.update(said=row.audited[0], said_float=row.audited[1])
            sums.update(differ=row.straight != row.audited)
        keys = ("files", "integer", "said", "float", "said_float", "differ")
        table.append([group, *(sums[key] for key in keys)])
    head = ["files of", "number", "integer kernels", "by the audit", "float kernels"]
    print_table("Products by kernel", [*head, "by the audit", "files that differ"], table)
    wrong = [row for row in rows if row.straight != row.audited]
    for row in wrong:
        print(f"differs: {row.group} {row.name}: {row.straight}, audit {row.audited}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
