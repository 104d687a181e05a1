"""What model_inspect shows: planted faults named first, what the page costs, how it reacts.

    QDQC_ASSETS=... python benchmarks/inspection.py [digits] [lite0] [page] [big] [pictures]

Parts, all by default:
digits, lite0: faults are planted into a healthy INT8 model, one at a time, and the first cause
that ``model_inspect --text`` names is held against what was planted: a threshold divided by 20,
the scales of a weight permuted, mean and scale swapped for the calibration alone, the same swap
in both models. ``--every N`` plants at each Nth place (default 8).
page: seconds of the whole process and megabytes of the page over EfficientNet-Lite0, 16 photos.
big: megabytes of the page over 10,000 nodes, and milliseconds from an action to the next frame.
pictures: the page at 1280 and 1920 wide, light and dark, into ``--folder``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from assets import DIGITS, assets_folder
from browser import Browser, find_browser
from markdown import print_table
from onnx import numpy_helper
from photos import PREPROCESS_OPTIONS
from qdqc_commands import calibrate, run, transform

from qdqc.calibration.table import load_table, save_table
from qdqc.ir.types import Range

__all__ = ["main"]

PARTS = ("digits", "lite0", "page", "big", "pictures")
NODES = 10_000
ROUNDS = 7
DIGITS_SHAPE = ("--pixel_format", "gray", "--resize_dims", "32,32")
DIGITS_RIGHT = ("--mean", "127.5", "--scale", "0.0078125")
DIGITS_SWAPPED = ("--mean", "0.0078125", "--scale", "127.5")
LITE_SHAPE = ("--input_shapes", "[[1,3,224,224]]")
LITE_SWAPPED = ("--mean", ",".join(["0.0078125"] * 3), "--scale", "127,127,127")

ACTIONS = {
    "sort by a column": "document.querySelector('#head [data-column=sqnr]').click()",
    "filter by words": "typed('filter', ROUND % 2 ? 'conv sqnr<60' : 'tanh')",
    "scroll the table": "document.getElementById('table').scrollTop = 5000 * (ROUND + 1)",
    "open a node": "choose(100 + 1300 * ROUND)",
    "find a node": "typed('find', `layer${30 + ROUND}/2/b3/c`)",
    "unfold a level": "document.getElementById('open').click()",
    "fold all": "document.getElementById('fold').click()",
    "colour by time": "picked('colour', ROUND % 2 ? 'time' : 'precision')",
    "change the theme": "document.getElementById('theme').click()",
}
"""What is done to the page of many nodes; ``ROUND`` counts from 0."""

DRIVER = """
globalThis.typed = (id, text) => { const field = document.getElementById(id); field.value = text;
  field.dispatchEvent(new Event('input')); };
globalThis.picked = (id, text) => { const field = document.getElementById(id); field.value = text;
  field.dispatchEvent(new Event('change')); };
globalThis.until = (act) => new Promise((done) => requestAnimationFrame(() => {
  const start = performance.now(); act();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))); }));
"""
"""``until`` gives the milliseconds from an action to the frame that shows it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--every", type=int, default=8, help="each Nth place (default: 8)")
    parser.add_argument("--folder", type=Path, help="keep what is made here (default: nowhere)")
    args = parser.parse_args(argv)
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = args.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for part in args.parts or PARTS:
            _PARTS[part](folder, args.every)
    return 0


@dataclass(frozen=True)
class Net:
    """A float module with its table and deployment, and the same with mean and scale swapped."""

    qir: Path
    table: Path
    model: Path
    swapped_qir: Path
    swapped_table: Path
    photos: Path
    right: tuple[object, ...]


@dataclass(frozen=True)
class Fault:
    """A planted fault: its models, and by what the first cause is known."""

    kind: str
    place: str
    model: Path
    causes: tuple[str, ...]
    reference: Path
    options: tuple[object, ...] = ()


def _digits_net(folder: Path) -> Net:
    model = DIGITS / "digits.onnx"
    return _net(folder, model, DIGITS_SHAPE, DIGITS_RIGHT, DIGITS_SWAPPED, DIGITS / "photos")


def _lite_net(folder: Path) -> Net | None:
    assets = assets_folder("models/effnet_lite0.onnx")
    if assets is None or assets_folder("imagenet_dev/calib") is None:
        return None
    photos = assets / "imagenet_dev" / "calib"
    model = assets / "models" / "effnet_lite0.onnx"
    return _net(folder, model, LITE_SHAPE, PREPROCESS_OPTIONS, LITE_SWAPPED, photos)


def _net(
    folder: Path,
    model: Path,
    shape: tuple[str, ...],
    right: tuple[str, ...],
    swapped: tuple[str, ...],
    photos: Path,
) -> Net:
    """All stages of a network. The run that is known to be right is of one photo."""
    made: list[tuple[Path, Path]] = []
    photo = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[0]
    known = (folder / f"{model.stem}_right.npz", folder / f"{model.stem}_swapped.npz")
    both = (("right", right, known[0]), ("swapped", (*right, *swapped), known[1]))
    for name, stated, result in both:
        inside = folder / f"{model.stem}_{name}"
        inside.mkdir(exist_ok=True)
        tested = ("--test_input", photo, "--test_result", result)
        qir = transform(model, inside, *shape, *stated, *tested)
        made.append((qir, calibrate(qir, photos, "mse", "--input_num", 32)))
    (qir, table), (swapped_qir, swapped_table) = made
    deployed = qir.with_name("healthy.onnx")
    _deploy(qir, table, deployed)
    known_right = ("--test_result", known[0])
    return Net(qir, table, deployed, swapped_qir, swapped_table, photos, known_right)


def _deploy(qir: Path, table: Path, model: Path) -> None:
    given = ("--mlir", qir, "--calibration_table", table, "--model", model)
    run("model_deploy", model.with_suffix(".json"), *given, "--tolerance=-1,-9", "-qq")


def _thresholds(net: Net, folder: Path, every: int) -> Iterator[Fault]:
    for name in list(load_table(net.table).rows)[::every]:
        table = load_table(net.table)
        row = table.rows[name]
        table.rows[name] = Range(row.min / 20, row.max / 20, row.threshold / 20)
        save_table(table, folder / "planted.cali_table")
        _deploy(net.qir, folder / "planted.cali_table", folder / "planted.onnx")
        causes = ("saturation", "calibration", "range")
        yield Fault("a threshold divided by 20", name, folder / "planted.onnx", causes, net.qir)


def _permuted(net: Net, folder: Path, every: int) -> Iterator[Fault]:
    proto = onnx.load(net.model)
    casts = {n.output[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    products = [n for n in proto.graph.node if n.op_type in ("Conv", "Gemm")]
    for node in products[::every]:
        planted = onnx.load(net.model)
        tensors = {t.name: t for t in planted.graph.initializer}
        held = tensors[casts[node.input[1]].input[1]]
        scales = np.random.default_rng(0).permutation(numpy_helper.to_array(held))
        held.CopyFrom(numpy_helper.from_array(scales, held.name))
        onnx.save(planted, folder / "permuted.onnx")
        place = node.output[0].removesuffix("_f")
        yield Fault("weight scales permuted", place, folder / "permuted.onnx", ("weight",), net.qir)


def _swapped(net: Net, folder: Path) -> Iterator[Fault]:
    table = load_table(net.swapped_table)
    del table.header["digest"]  # it would tell that the table belongs to another model
    save_table(table, folder / "swapped.cali_table")
    _deploy(net.qir, folder / "swapped.cali_table", folder / "swapped.onnx")
    kinds = ("swapped for the calibration alone", "swapped in both")
    yield Fault(kinds[0], "", folder / "swapped.onnx", ("calibration",), net.qir)
    _deploy(net.swapped_qir, net.swapped_table, folder / "both.onnx")
    reference, causes = net.swapped_qir, ("preprocessing",)
    yield Fault(kinds[1], "", folder / "both.onnx", causes, reference, net.right)


def _plant(title: str, net: Net, folder: Path, every: int) -> None:
    """Plant all faults, and print how many were named first."""
    counts: dict[str, list[int]] = {}
    healthy = _causes(net.qir, net.model, net, folder)
    print(f"\n{title}, healthy: {len(healthy)} causes")
    sources = (_thresholds(net, folder, every), _permuted(net, folder, every))
    for fault in chain(*sources, _swapped(net, folder)):
        _count(fault, net, folder, counts)
    rows = [[kind, sum(found), len(found)] for kind, found in counts.items()]
    print_table(f"{title}: faults named first", ("fault", "named first", "planted"), rows)


def _count(fault: Fault, net: Net, folder: Path, counts: dict[str, list[int]]) -> None:
    found = _causes(fault.reference, fault.model, net, folder, *fault.options)
    first = found[0] if found else {"kind": "none", "name": ""}
    named = not fault.place or (fault.place.startswith(first["name"]) and first["name"] != "")
    hit = first["kind"] in fault.causes and named
    counts.setdefault(fault.kind, []).append(int(hit))
    if not hit:
        print(f"missed: {fault.kind} at '{fault.place}': {first['kind']} '{first['name']}'")


def _causes(
    reference: Path, model: Path, net: Net, folder: Path, *options: object
) -> list[dict[str, Any]]:
    given = ("--reference", reference, "--quantized", model, "--input", net.photos)
    report = run("model_inspect", folder / "causes.json", *given, "--input_num", 4, *options)
    return report["causes"]


def _digits(folder: Path, every: int) -> None:
    _plant("digits", _digits_net(folder), folder, every)


def _lite0(folder: Path, every: int) -> None:
    net = _lite_net(folder)
    if net is not None:
        _plant("EfficientNet-Lite0", net, folder, every)


def _lite_page(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The page over EfficientNet-Lite0, and the report of the command that made it."""
    net = _lite_net(folder)
    if net is None:
        return None
    page = folder / "lite0.html"
    given = ("--reference", net.qir, "--quantized", net.model, "--input", net.photos)
    return page, run("model_inspect", folder / "page.json", *given, "-o", page)


def _page(folder: Path, _every: int) -> None:
    made = _lite_page(folder)
    if made is None:
        return
    page, report = made
    rows = [
        ["seconds", f"{report['seconds']:.1f}", "20"],
        ["megabytes", f"{page.stat().st_size / 1e6:.2f}", "12"],
    ]
    print_table("Page over EfficientNet-Lite0, 16 photos", ("", "measured", "below"), rows)


def _big(folder: Path, _every: int) -> None:
    page = _big_page(folder)
    print_table(
        f"Page over {NODES:,} nodes",
        ("", "measured", "below"),
        [["megabytes", f"{page.stat().st_size / 1e6:.2f}", "30"]],
    )
    program = _found_browser()
    if program is None:
        return
    rows: list[list[object]] = []
    with _browsing(program, folder) as browser:
        browser.open(page, width=1920)
        browser.run(DRIVER)
        for title, script in ACTIONS.items():
            acts = [script.replace("ROUND", str(i)) for i in range(ROUNDS)]
            times = [browser.run(f"until(() => {{ {act} }})") for act in acts]
            rows.append([title, f"{median(times):.0f}", f"{max(times):.0f}", 200])
        print(f"errors on the console: {len(browser.errors)}, requests: {len(browser.requests)}")
    head = ("action", "median ms", "largest ms", "below")
    print_table(f"From an action to the frame that shows it, {ROUNDS} times", head, rows)


def _big_page(folder: Path) -> Path:
    """The page over a network of residual blocks, deployed in INT8."""
    qir, data, page = folder / "big.qir", folder / "big.npz", folder / "big.html"
    qir.write_text(_big_text())
    rng = np.random.default_rng(0)
    np.savez(data, x=rng.standard_normal((2, 4, 6, 6)).astype(np.float32))
    table = calibrate(qir, data, "max")
    model = folder / "big_int8.onnx"
    _deploy(qir, table, model)
    given = ("--reference", qir, "--quantized", model, "--input", data, "-o", page)
    run("model_inspect", folder / "big.json", *given)
    return page


def _big_text() -> str:
    """``NODES`` nodes in layers of five groups of ten blocks of four."""
    rng = np.random.default_rng(0)
    lines: list[str] = []
    before = "x"
    for block in range(NODES // 4):
        path = f"/layer{block // 50}/{block % 50 // 10}/b{block % 10}"
        parts = (
            f"c = conv(%{before}, %w{block % 7})",
            f"t = tanh(%{path}/c)",
            f"a = add(%{path}/t, %{before})",
            f"o = mul(%{path}/a, %h)",
        )
        lines += [f'    %{path}/{part} : f32[1,4,6,6] loc("{path}/{part[0]}")' for part in parts]
        before = f"{path}/o"
    weights = [", ".join(f"{v:.4f}" for v in rng.standard_normal(16) * 1.2) for _ in range(7)]
    constants = [f"  const %w{i} : f32[4,4,1,1] = dense[{w}]" for i, w in enumerate(weights)]
    head = 'module @big {opsets = {"" = 17}} {'
    graph = f"  graph (%x : f32[1,4,6,6]) -> (%{before}) {{"
    parts = [head, *constants, "  const %h : f32[] = dense[0.8]", graph, *lines, "  }", "}"]
    return "\n".join(parts) + "\n"


def _pictures(folder: Path, _every: int) -> None:
    made, program = _lite_page(folder), _found_browser()
    if made is None or program is None:
        return
    with _browsing(program, folder) as browser:
        for width in (1280, 1920):
            for dark in (False, True):
                browser.open(made[0], width=width, dark=dark)
                path = folder / f"page_{width}_{'dark' if dark else 'light'}.png"
                browser.picture(path)
                errors, requests = len(browser.errors), len(browser.requests) - 1
                print(f"{path}: {errors} errors, {requests} requests beside the page")
                browser.requests.clear()


def _found_browser() -> str | None:
    program = find_browser()
    if program is None:
        print("skipped the browser: no Chromium on this machine (Debian: apt-get install chromium)")
    return program


def _browsing(program: str, folder: Path) -> Browser:
    profile = folder / "profile"
    profile.mkdir(exist_ok=True)
    return Browser(program, profile)


_PARTS = {
    "digits": _digits,
    "lite0": _lite0,
    "page": _page,
    "big": _big,
    "pictures": _pictures,
}


if __name__ == "__main__":
    sys.exit(main())
