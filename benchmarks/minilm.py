"""A MiniLM sentence encoder: round trips, INT8 accuracy and latency beside onnxruntime's.

    QDQC_ASSETS=... python benchmarks/minilm.py [--shape 64] [--pairs 100] [--rounds 200]

Batch and length are symbols; ``--shape 64`` fixes them to [1,64]. First the module is held
against the original after import and after each pass of @transform, one after another, and
after @transform as a whole: printed, parsed and exported, the outputs for 8 inputs with
optimisations off must lie within max|a-b| <= 1e-4 max|b|.

Then both are quantized: the project's by mse, onnxruntime's by quantize_dynamic (s8 weights per
channel) and quantize_static (MinMax, u8 activations, s8 weights per channel; all its ops, and
MatMul and Gemm alone, products of two activations with them), after its quant_pre_process.
Spearman is that of the cosine of two sentences' embeddings with the human score. Sentences run
one at a time, at their own length or padded to the fixed one. Latency: one thread, batch 1, the
models interleaved in one process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from assets import assets_folder
from fidelity import cosine
from markdown import print_table
from ort_quantizer import Sample, Samples, fixed_model, node_counts, prepared, quantized, session
from qdqc_commands import Deployed, calibrate, run, transform
from sentences import TOKENS, Pairs, batch, calibration_samples, embedding, spearman
from side_by_side import FLOAT, OWN, PEER, print_kernels, print_latency
from simplify import INPUTS, TOLERANCE

if TYPE_CHECKING:
    from qdqc.ir.graph import Module

__all__ = ["DYNAMIC", "embeddings", "main"]

DYNAMIC, MATMULS = "onnxruntime dynamic", f"{PEER}, MatMul and Gemm"
_MODEL, _PAIRS, _CALIB = "models/minilm.onnx", "sts/headlines_val.npz", "sts/calib"
_TIMED_TOKENS = 32
_CHECKED = 8
"""Sentences that model_deploy compares on."""


@dataclass(frozen=True)
class Setting:
    """What the steps share: files, data, and the fixed length, 0 where it is a symbol."""

    net: Path
    calib: Path
    pairs: Pairs
    tokens: int
    folder: Path

    def shapes(self) -> list[list[int]] | None:
        """Shapes of the three inputs, where they are fixed."""
        return [[1, self.tokens]] * 3 if self.tokens else None


def main(argv: Sequence[str] | None = None) -> int:
    """Check the round trips, quantize with both, then print accuracy, kernels and latency."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shape", type=int, choices=[TOKENS], default=0, help="fix the inputs to [1,64]")
    add("--pairs", type=int, default=0, help="sentence pairs (default: all)")
    add("--rounds", type=int, default=200, help="rounds of timing (default: 200)")
    args = parser.parse_args(argv)
    assets = assets_folder(_MODEL)
    if assets is None or assets_folder(_PAIRS) is None or assets_folder(_CALIB) is None:
        return 0
    pairs = Pairs.load(assets / _PAIRS, args.pairs)
    with tempfile.TemporaryDirectory() as folder:
        net, calib = assets / _MODEL, assets / _CALIB
        setting = Setting(net, calib, pairs, args.shape, Path(folder))
        agree = _round_trips(setting)
        models = {FLOAT: _float_model(setting), OWN: _own(setting)}
        models |= _peers(models[FLOAT], setting)
        _accuracy(models, setting)
        print_kernels(models, Path(folder))
        _latency({name: models[name] for name in (FLOAT, OWN, DYNAMIC)}, setting, args.rounds)
    return 0 if agree else 1


def _round_trips(setting: Setting) -> bool:
    """Print and parse each stage, and hold what it exports against the original."""
    import qdqc

    original = session(setting.net, level="off")
    feeds = [_checked_feeds(setting, index) for index in range(INPUTS)]
    exact = [original.run(None, feed)[0] for feed in feeds]
    rows: list[list[object]] = []
    agree = True
    for name, module in _stages(setting):
        parsed = qdqc.from_text(qdqc.to_text(module), weights=module)
        proto = qdqc.export_onnx(parsed)
        worst = _difference(session(proto, level="off"), feeds, exact)
        equal = parsed == module
        agree &= equal and worst <= TOLERANCE
        nodes = sum(1 for _ in module.walk())
        rows.append([name, nodes, node_counts(proto).total(), equal, f"{worst:.1e}"])
    head = ["after", "IR nodes", "ONNX nodes", "equal when parsed", "max|a-b| / max|b|"]
    print_table(f"Import, print, parse, export: {_described(setting)}, {INPUTS} inputs", head, rows)
    print(f"\nall equal, and within {TOLERANCE}: {agree}")
    return agree


def _stages(setting: Setting) -> Iterator[tuple[str, Module]]:
    """The module after import, after each pass on top of those before, and after all at once."""
    import qdqc
    from qdqc.pipeline.discovery import load_passes, pipelines
    from qdqc.pipeline.spec import print_pipeline, resolve

    imported = qdqc.import_onnx(setting.net, input_shapes=setting.shapes())
    yield "import", imported
    load_passes()
    module = imported
    for pass_ in resolve("@transform", pipelines()):
        step = print_pipeline([pass_])
        module = qdqc.run(module, step)
        yield step, module
    yield "@transform", qdqc.run(imported, "@transform")


def _checked_feeds(setting: Setting, index: int) -> Sample:
    """One sentence of the fixed length; else one to three, as long as the longest of them."""
    every = len(setting.pairs.ids)
    first = index * every // INPUTS
    count = 1 if setting.tokens else 1 + index % 3
    return batch(setting.pairs, [(first + n) % every for n in range(count)], setting.tokens)


def _difference(found: Any, feeds: list[Sample], exact: list[npt.NDArray[Any]]) -> float:
    """The largest max|a-b| / max|b| over the inputs; infinite where shapes differ."""
    worst = 0.0
    for feed, b in zip(feeds, exact, strict=True):
        a = found.run(None, feed)[0]
        same = a.shape == b.shape and np.isfinite(a).all()
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()) if same else np.inf)
    return worst


def _described(setting: Setting) -> str:
    return f"[1,{setting.tokens}]" if setting.tokens else "dynamic shapes"


def _float_model(setting: Setting) -> Path:
    """The float model, with its symbols set where the shape is fixed."""
    if not setting.tokens:
        return setting.net
    one = fixed_model(setting.net, setting.folder / "batch.onnx", "batch", 1)
    return fixed_model(one, setting.folder / "fixed.onnx", "seq", setting.tokens)


def _own(setting: Setting) -> Path:
    """The model by the project's commands; prints what they report."""
    shapes = setting.shapes()
    given = ("--input_shapes", shapes) if shapes else ()
    qir = transform(setting.net, setting.folder, *given)
    table = calibrate(qir, setting.calib)
    test, out = setting.folder / "test.npz", setting.folder / "minilm_int8.onnx"
    every = len(setting.pairs.ids)
    rows = np.linspace(0, every - 1, min(_CHECKED, every)).astype(int).tolist()
    np.savez(test, **batch(setting.pairs, rows, TOKENS))
    options = ("--mlir", qir, "--calibration_table", table, "--model", out, "--test_input", test)
    deployed = Deployed(out, run("model_deploy", setting.folder / "deploy.json", *options))
    _print_report(deployed, len(rows))
    return out


def _print_report(deployed: Deployed, sentences: int) -> None:
    report = deployed.report
    products = ("conv", "conv_transpose", "gemm", "matmul")
    counts = Counter(
        (row["op"], row["runs"], row["reason"] or "")
        for row in report["audit"]["ops"]
        if row["op"] in products
    )
    rows = [[*key, count] for key, count in counts.most_common()]
    print_table("model_deploy: audit of the products", ["op", "runs", "reason", "count"], rows)
    size = report["bytes"]
    part = size["deployed"] / size["float"]
    print(f"\nproducts in integers: {deployed.products()}")
    print(f"bytes: {size['deployed']:,} of {size['float']:,} ({part:.3f})")
    for name, row in report["outputs"].items():
        told = ", ".join(f"{key} {row[key]:.4f}" for key in ("cos", "euclid", "sqnr"))
        print(f"{name}, {sentences} sentences padded to {TOKENS}: {told}")


def _peers(net: Path, setting: Setting) -> dict[str, Path]:
    """What onnxruntime makes of the model, dynamically and statically."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = setting.folder
    ready = prepared(net, folder / "prepared.onnx")
    dynamic = folder / "dynamic.onnx"
    quantize_dynamic(ready, dynamic, per_channel=True, weight_type=QuantType.QInt8)
    samples = partial(calibration_samples, setting.calib)
    static = quantized(ready, folder / "static.onnx", samples())
    matmuls = _quantized_matmuls(ready, folder / "matmuls.onnx", samples())
    return {DYNAMIC: dynamic, PEER: static, MATMULS: matmuls}


def _quantized_matmuls(model: Path, out: Path, samples: Iterator[Sample]) -> Path:
    """As ``quantized``, but only MatMul becomes integer, and the Gemm that preparation fuses.

    Where shapes are fixed it makes a Gemm of some MatMul and Add; these would stay float.
    """
    from onnxruntime.quantization import QuantType, quantize_static

    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    only = ["MatMul", "Gemm"]
    quantize_static(
        model, out, Samples(samples), per_channel=True, op_types_to_quantize=only, **kinds
    )
    return out


def embeddings(model: Path, pairs: Pairs, tokens: int = 0) -> npt.NDArray[np.float64]:
    """Embeddings of all sentences, [2N,384], one sentence at a time; ``tokens`` as ``batch``'s."""
    net = session(model)
    found: list[npt.NDArray[np.float64]] = []
    for row in range(len(pairs.ids)):
        feeds = batch(pairs, [row], tokens)
        found.append(embedding(net.run(None, feeds)[0], feeds["attention_mask"]))
    return np.concatenate(found)


def _accuracy(models: dict[str, Path], setting: Setting) -> None:
    count = len(setting.pairs.score)
    exact = embeddings(models[FLOAT], setting.pairs, setting.tokens)
    base = spearman(cosine(exact[:count], exact[count:]), setting.pairs.score)
    rows: list[list[object]] = [[FLOAT, f"{base:.4f}", "", "", ""]]
    for name in list(models)[1:]:
        found = embeddings(models[name], setting.pairs, setting.tokens)
        ranked = spearman(cosine(found[:count], found[count:]), setting.pairs.score)
        near = cosine(found, exact)
        difference = f"{ranked - base:+.4f}"
        rows.append([name, f"{ranked:.4f}", difference, f"{near.mean():.5f}", f"{near.min():.5f}"])
    head = ["model", "Spearman", "less float", "cosine, mean", "cosine, least"]
    print_table(f"Accuracy on {count} sentence pairs, {_described(setting)}", head, rows)


def _latency(models: dict[str, Path], setting: Setting, rounds: int) -> None:
    """Latency of the models on one thread; padding costs as much as tokens do."""
    tokens = setting.tokens or _TIMED_TOKENS
    feeds = batch(setting.pairs, [0], tokens)
    print_latency(models, feeds, f"batch 1, {tokens} tokens", rounds, peer=DYNAMIC)


if __name__ == "__main__":
    raise SystemExit(main())
