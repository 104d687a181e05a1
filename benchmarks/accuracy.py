"""What tuning the weights gains, and what it costs.

    QDQC_ASSETS=... python benchmarks/accuracy.py [lite0] [minilm] [equalize] [w4] [passes] [exact]

lite0: EfficientNet-Lite0 by each recipe from 100 photos, ``best`` from 32 as well, on the photos
of val: agreement over ten views a photo, SQNR and cosine of the logits, with 95 % bootstrap
intervals over photos; time and private memory of the whole run_calibration, reading included.
minilm: static INT8 by ``balanced`` and max ranges, tuned on calibration sentences alone; cosine
of embeddings and Spearman on the held-back pairs; latency beside onnxruntime's dynamic model.
equalize: the digits with Relu and channels 100 times apart, one scale a weight, without and with
equalize-channels; what it declines on Lite0; Lite0 with one scale a weight. w4: 4-bit weights of
MiniLM. passes: each pass alone, on and off, on three networks. exact: how far passes that keep
the float function leave it. Peers run where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from assets import ROOT, assets_folder
from effnet import logits_of
from fidelity import agreement, bootstrap, cosine, sqnr_db
from markdown import print_table
from minilm import DYNAMIC, embeddings
from ort_quantizer import fixed_model, prepared, quantized
from photos import PREPROCESS_OPTIONS, VIEWS, centre, centres, labelled_photos, photo_files
from process_cost import ProcessCost, measure
from qdqc_commands import argv as command_line
from qdqc_commands import deploy, transform
from sentences import Pairs, batch, spearman
from side_by_side import FLOAT, OWN, PEER, print_latency
from tuned_networks import Network, digits, lite0, minilm, spread_out

__all__ = ["main"]

RECIPES = ("fast", "balanced", "best")
PASSES = {
    "round-weights, nearest": 'round-weights{{method="nearest"{0}}}',
    "round-weights": "round-weights{{{0}}}",
    "refine-weight-scales": "refine-weight-scales{{{0}}}",
    "smooth-activations": "smooth-activations{{{0}}}",
    "equalize-activations": "equalize-activations{{{0}}}",
    "equalize-channels": "equalize-channels",
}
"""Each pass by what its row is called; 0 is the mask as an option."""

_ONE_SCALE = (
    "",
    "equalize-channels",
    "refine-weight-scales{0}",
    "round-weights{0}",
    "refine-weight-scales{0},round-weights{0}",
)
"""Pipelines for weights with one scale; 0 is the option that says so."""

EXACT = ("equalize-channels", "equalize-activations", "smooth-activations")
_NET, _CALIB, _MINILM = "models/effnet_lite0.onnx", "imagenet_dev/calib", "models/minilm.onnx"
_ROUNDS, _TOKENS = 200, 32
_NNCF = "nncf MIXED, accurate bias correction"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of the parts that are named, or of all."""
    parts: dict[str, Callable[[Path], object]] = {
        "lite0": _lite0,
        "minilm": _minilm,
        "equalize": _equalize,
        "w4": _w4,
        "passes": _passes,
        "exact": _exact,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[], help="(default: all)")
    for name in parser.parse_args(argv).parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))
    return 0


def _tuned(qir: Path, data: Path, recipe: str, *options: object) -> tuple[Path, ProcessCost]:
    """The deployed model by a recipe, and what its run_calibration cost."""
    name = "_".join((recipe, *(str(o).strip("-") for o in options)))
    out = qir.with_name(f"{name}.qir")
    table = out.with_suffix(".cali_table")
    given = ("--recipe", recipe, "--tuned", out, "-o", table, "--no_cache", "-q")
    cost = measure(command_line("run_calibration", qir, "--dataset", data, *options, *given), ROOT)
    deployed = deploy(out, table)
    print(f"{name}: {deployed.products()} products in integers")
    return deployed.model, cost


def _lite0(folder: Path) -> None:
    """Recipes beside the plain model and the peer."""
    assets = assets_folder(_NET)
    if assets is None or assets_folder(_CALIB) is None:
        return
    net = fixed_model(assets / _NET, folder / "net.onnx", "batch", 1)
    qir, calib = transform(net, folder, *PREPROCESS_OPTIONS), assets / _CALIB
    models, costs = {FLOAT: net}, dict[str, ProcessCost]()
    table = folder / "plain"
    line = command_line("run_calibration", qir, "--dataset", calib, "-o", table, "--no_cache", "-q")
    costs[OWN] = measure(line, ROOT)
    models[OWN] = deploy(qir, table).model
    for recipe in RECIPES:
        models[recipe], costs[recipe] = _tuned(qir, calib, recipe)
    few = f"{RECIPES[-1]}, 32 photos"
    models[few], costs[few] = _tuned(qir, calib, RECIPES[-1], "--input_num", 32)
    ready = prepared(net, folder / "prepared.onnx")
    models[PEER] = quantized(ready, folder / "peer.onnx", centres(photo_files(calib)))
    if importlib.util.find_spec("nncf") is None:
        print("nncf is left out: it is not installed")
    else:
        models[_NNCF] = _by_nncf(net, folder / "nncf.onnx", photo_files(calib))
    _print_lite0(models, costs, assets)


def _by_nncf(net: Path, out: Path, photos: list[Path]) -> Path:
    import nncf
    import onnx

    found = nncf.quantize(
        onnx.load(str(net)),
        nncf.Dataset(list(centres(photos))),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(photos),
        fast_bias_correction=False,
    )
    onnx.save(found, str(out))
    return out


def _print_lite0(models: dict[str, Path], costs: dict[str, ProcessCost], assets: Path) -> None:
    photos = labelled_photos(assets / "imagenet_dev", "val")
    logits = logits_of(models, photos, VIEWS)
    exact = logits[FLOAT]
    rows: list[list[object]] = []
    for name in list(models)[1:]:
        found, cost = logits[name], costs.get(name)
        near, noise = cosine(found, exact).mean(-1), sqnr_db(found, exact).mean(-1)
        spent = ["", ""] if cost is None else [cost.seconds, cost.peak_bytes / 1e9]
        rows.append(
            [
                name,
                bootstrap(agreement(found, exact)).text(),
                f"{agreement(found[:, :1], exact[:, :1]).mean():.4f}",
                bootstrap(noise).text(2),
                bootstrap(near).text(5),
                *(f"{x:.2f}" if x else "" for x in spent),
            ]
        )
    head = ["model", "agreement, ten views", "centre", "SQNR dB", "cosine", "seconds", "private GB"]
    print_table(f"EfficientNet-Lite0, {len(photos)} photos", head, rows)
    timed = {n: models[n] for n in (FLOAT, OWN, *RECIPES)}
    print_latency(timed, {"input": centre(photos[0].path)}, "batch 1", _ROUNDS, peer=OWN)


def _minilm(folder: Path) -> None:
    """The tuned static model beside onnxruntime's dynamic one."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    assets = assets_folder(_MINILM)
    if assets is None or assets_folder("sts/calib") is None:
        return
    net, calib = assets / _MINILM, assets / "sts/calib"
    qir = transform(net, folder)
    models = {FLOAT: net, DYNAMIC: folder / "dynamic.onnx"}
    ready = prepared(net, folder / "prepared.onnx")
    quantize_dynamic(ready, models[DYNAMIC], per_channel=True, weight_type=QuantType.QInt8)
    options = ("--cali_method", "max", "--mask", "attention_mask")
    own = "balanced"
    models[own], cost = _tuned(qir, calib, own, *options)
    print(f"run_calibration: {cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.2f} GB private")
    pairs = Pairs.load(assets / "sts/headlines_val.npz")
    count = len(pairs.score)
    made = {name: embeddings(path, pairs) for name, path in models.items()}
    rows = [
        [
            name,
            f"{spearman(cosine(e[:count], e[count:]), pairs.score):.4f}",
            f"{cosine(e, made[FLOAT]).mean():.5f}",
        ]
        for name, e in made.items()
    ]
    print_table(f"MiniLM, {count} pairs", ["model", "Spearman", "embedding cosine"], rows)
    feeds = batch(pairs, [0], _TOKENS)
    print_latency(models, feeds, f"batch 1, {_TOKENS} tokens", _ROUNDS, peer=DYNAMIC)


def _equalize(folder: Path) -> None:
    """Weights with one scale: channels far apart, and Lite0."""
    small = digits(folder)
    wide = spread_out(small.module)
    apart = Network("digits, spread", wide, small.samples, small.judged)
    even = apart.tuned("equalize-channels")
    rows = [
        [weights, name, *apart.near(apart.deployed(m, per_tensor=one)).cells()]
        for weights, one in (("one scale", True), ("a scale a channel", False))
        for name, m in (("as they are", wide), ("equalized", even))
    ]
    head = ["weights", "channels", "cosine", "SQNR dB", "agreement"]
    print_table("Digits with Relu, channels 100 times apart", head, rows)
    net = lite0(folder)
    if net is None:
        return
    _print_declined(net)
    rows = []
    for name in _ONE_SCALE:
        module = net.tuned(name.format('{scheme="per-tensor"}'))
        found = net.near(net.deployed(module, per_tensor=True))
        rows.append([name.format("") or "none, but for correct-bias", *found.cells()])
    print_table("Lite0, one scale a weight, centre views", ["pass", *head[2:]], rows)


def _print_declined(net: Network) -> None:
    """Why equalize-channels leaves products of the network alone, by reason without names."""
    from qdqc.ir.clone import clone
    from qdqc.passes.equalize_channels import EqualizeChannels
    from qdqc.pipeline.pass_ import PassContext

    context = PassContext(mismatches=[])
    EqualizeChannels().run(clone(net.module).graph, context)
    reasons = {m.node: re.sub(r"%\S+", "the value", m.reason) for m in context.mismatches or []}
    rows = [[reason, count] for reason, count in Counter(reasons.values()).most_common()]
    done = context.statistics.most_common()
    title = f"{net.title}: what equalize-channels declines ({done})"
    print_table(title, ["reason", "products"], rows)


def _w4(folder: Path) -> None:
    """Weights of 4 bits, rounded alone and by what the products read."""
    import qdqc
    from qdqc.quant.deployment import Deployment

    net = minilm(folder)
    if net is None:
        return
    pipeline = Deployment(mode="W4").stages(calibrated=False).pipeline
    rows: list[list[object]] = []
    for name in ("", "round-weights{{bits=4{0}}}"):
        module = net.tuned(name.format(net.option()))
        lowered = qdqc.run(module, pipeline)
        found = net.near(qdqc.export_onnx(lowered))
        rows.append([name.format("") or "rounded alone", found.cells()[0]])
    print_table("MiniLM, W4 in groups of 32", ["weights", "embedding cosine"], rows)


def _networks(folder: Path) -> Iterator[Network]:
    for make in (lite0, minilm, digits):
        found = make(folder)
        if found is not None:
            yield found


def _passes(folder: Path) -> None:
    """Each pass alone, on top of nothing but what model_deploy does by default."""
    for net in _networks(folder):
        plain = net.near(net.deployed(net.module))
        rows: list[list[object]] = [["none", *plain.cells(), ""]]
        without = net.near(net.deployed(net.module, correct_bias=False))
        rows.append(["no correct-bias", *without.cells(), f"{without.sqnr - plain.sqnr:+.2f}"])
        for name, pipeline in PASSES.items():
            tuned = net.tuned(pipeline.format(net.option()))
            found = net.near(net.deployed(tuned))
            rows.append([name, *found.cells(), f"{found.sqnr - plain.sqnr:+.2f}"])
        head = ["pass", "cosine", "SQNR dB", "agreement", "gain dB"]
        print_table(f"{net.title}: each pass alone", head, rows)


def _exact(folder: Path) -> None:
    """The largest difference of outputs, over their largest number."""
    import qdqc

    rows: list[list[object]] = []
    for net in _networks(folder):
        for name in EXACT:
            options = net.option() if name in ("smooth-activations",) else ""
            tuned = qdqc.export_onnx(net.tuned(f"{name}{{{options}}}" if options else name))
            worst = np.abs(net.judged(tuned) - net.exact).max() / np.abs(net.exact).max()
            rows.append([net.title, name, f"{worst:.1e}"])
    print_table("The float function", ["network", "pass", "max|a-b| / max|b|"], rows)


if __name__ == "__main__":
    raise SystemExit(main())
