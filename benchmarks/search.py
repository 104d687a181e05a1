"""The search of sensitive layers: speed and exactness, what it finds, and what kills do to it.

    QDQC_ASSETS=... python benchmarks/search.py [speed] [article] [minilm] [digits] [pareto] [kills]

speed: EfficientNet-Lite0, symmetric INT8, kl, max and percentile9999 from 100 photos, judged on
30: the search beside the same one done straight (``straight_search.py``: a whole model and a
session for each trial), one thread each, in one process after the other. article: the gain of
one float layer and of new thresholds on the photos of val. minilm: static INT8 from max ranges;
the float MatMuls that the search leaves, and embeddings on the held-back pairs. digits: found
sets beside the smallest of all sets. pareto: predicted and measured latency. kills: SIGKILL at
random moments, and the table afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from assets import DIGITS, assets_folder
from fidelity import agreement, bootstrap, sqnr_db, top1
from markdown import print_table
from ort_quantizer import fixed_model, session
from photos import PREPROCESS_OPTIONS, centre, labelled_photos
from process_cost import measure
from qdqc_commands import argv as command_line
from qdqc_commands import run, transform
from search_kills import print_kills
from sentences import Pairs, batch, embedding, spearman

__all__ = ["main"]

METHODS = ("kl", "max", "percentile9999")
_NET, _CALIB = "models/effnet_lite0.onnx", "imagenet_dev/calib"
_INFERENCE = 30
_TARGETS = 6
_STRETCH = 30


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of the parts that are named, or of all."""
    parts: dict[str, Callable[[Path], object]] = {
        "speed": _speed,
        "article": _article,
        "minilm": _minilm,
        "digits": _digits,
        "pareto": _pareto,
        "kills": _kills,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[], help="(default: all)")
    parser.add_argument("--alone", choices=("straight", "exact", "default"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.alone:
        _search_alone(args.alone, args.folder)
        return 0
    for name in args.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))
    return 0


def _prepared(folder: Path) -> Path | None:
    """EfficientNet-Lite0 at batch 1 with the tables of all methods; None without assets."""
    assets = assets_folder(_NET)
    if assets is None or assets_folder(_CALIB) is None:
        return None
    net = fixed_model(assets / _NET, folder / "net.onnx", "batch", 1)
    qir = transform(net, folder, *PREPROCESS_OPTIONS)
    for method in METHODS:
        given = ("--dataset", assets / _CALIB, "--cali_method", method, "-o", folder / method)
        run("run_calibration", folder / "c.json", qir, *given)
    return qir


def _setup(folder: Path) -> tuple[Any, dict[str, Any], list[Any]]:
    """The deployment, the tables by method, and the photos that trials are judged on."""
    from qdqc.calibration.table import load_table
    from qdqc.data.dataset import open_dataset
    from qdqc.quant.deployment import Deployment
    from qdqc.search.trials.mixed_models import MixedModels
    from qdqc.text.qir_files import load

    module = load(folder / "net.qir")
    data = open_dataset(Path(os.environ["QDQC_ASSETS"]) / _CALIB, module.graph)
    samples = [sample for sample, _ in zip(data, range(_INFERENCE), strict=False)]
    tables = {method: load_table(folder / method) for method in METHODS}
    return MixedModels(module, Deployment(symmetric=True)), tables, samples


def _search_alone(way: str, folder: Path) -> None:
    """One search on one thread; its losses go into a file."""
    deployment, tables, samples = _setup(folder)
    if way == "straight":
        from straight_search import straight_losses

        losses: Mapping[str, Mapping[str, float]] = straight_losses(deployment, tables, samples)
    else:
        from qdqc.search.strategies.sensitivity import SCREENED, Sensitivity
        from qdqc.search.trials.journal import Journal
        from qdqc.search.trials.objective import Likeness
        from qdqc.search.trials.trials import Trials

        output = deployment.module.graph.outputs[0].name
        trials = Trials(deployment, tables[METHODS[0]], samples, Likeness({output: 1.0}))
        search = Sensitivity(trials, tables, Journal(None, ""))
        search.run(screened=SCREENED if way == "default" else 0)
        losses = {
            k: {m: t.loss for m, t in j.tried.items() if t.samples == j.samples}
            for k, j in search.judged.items()
        }
    (folder / f"{way}.json").write_text(json.dumps(losses))


def _speed(folder: Path) -> None:
    """Must be: exact 3.3 times as fast, the same bits, 0.6 GB; default 6 times, same ten."""
    if _prepared(folder) is None:
        return
    costs, found = {}, {}
    for way in ("straight", "exact", "default"):
        line = [sys.executable, __file__, "--alone", way, "--folder", str(folder)]
        costs[way] = measure(line)
        found[way] = json.loads((folder / f"{way}.json").read_text())
    exact = found["straight"]
    order = _worst(exact)
    rows: list[list[object]] = []
    for way, cost in costs.items():
        same = sum(found[way][k] == exact[k] for k in exact)
        near = spearman(*([min(f[k].values()) for k in order] for f in (found[way], exact)))
        worst = len(set(_worst(found[way])[:10]) & set(order[:10]))
        ratio = costs["straight"].seconds / cost.seconds
        private = f"{cost.peak_bytes / 1e9:.2f} GB"
        bits = f"{same} of {len(exact)}"
        rows.append([way, f"{cost.seconds:.1f} s", f"{ratio:.1f}x", private, bits, near, worst])
    head = ["search", "wall", "speed", "private", "same to the bit", "Spearman", "of worst ten"]
    print_table(f"{len(exact)} layers, {len(METHODS)} methods, {_INFERENCE} photos", head, rows)


def _worst(losses: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Integer layers, the worst first."""
    names = [k for k in losses if not k.startswith("values of ")]
    return sorted(names, key=lambda k: -min(losses[k].values()))


def _article(folder: Path) -> None:
    """INT8, one float layer with the old table, and with the new one, on held-back photos."""
    qir = _prepared(folder)
    if qir is None or assets_folder("imagenet_dev/labels.tsv") is None:
        return
    assets = Path(os.environ["QDQC_ASSETS"])
    table, qtable = folder / METHODS[0], folder / "one.qtable"
    options = (qir, "--dataset", assets / _CALIB, "--calibration_table", table, "-o", qtable)
    methods = ("--quantize_method_list", ",".join(METHODS), "--max_float_layers", 1)
    run("run_sensitive_layer", folder / "s.json", *options, *methods, "--symmetric")
    new = folder / "one_new_cali_table"
    models = {"float": folder / "net.onnx"}
    for name, ranges, given in (
        ("INT8", table, ()),
        ("one float layer, old table", table, ("--quantize_table", qtable)),
        ("one float layer, new table", new, ("--quantize_table", qtable)),
    ):
        models[name] = out = folder / f"{len(models)}.onnx"
        # What model_deploy would reject is measured all the same.
        near = ("--symmetric", "--tolerance", "0,0")
        deploy = ("--mlir", qir, "--calibration_table", ranges, "--model", out, *near)
        run("model_deploy", folder / "d.json", *deploy, *given)
    photos = labelled_photos(assets / "imagenet_dev", "val")
    nets = {name: session(path) for name, path in models.items()}
    logits: dict[str, list[Any]] = {name: [] for name in nets}
    for photo in photos:
        feeds = {"input": centre(photo.path)}
        for name, net in nets.items():
            logits[name].append(net.run(None, feeds)[0])
    whole = {name: np.concatenate(rows) for name, rows in logits.items()}
    labels = [photo.label for photo in photos]
    rows = [
        [
            name,
            bootstrap(top1(found, labels)).text(),
            f"{agreement(found[:, None], whole['float'][:, None]).mean():.4f}",
            f"{sqnr_db(found, whole['float']).mean():.2f}" if name != "float" else "",
        ]
        for name, found in whole.items()
    ]
    head = ["model", "top-1", "agreement", "SQNR dB"]
    print_table(f"{len(photos)} photos of val, symmetric", head, rows)


def _minilm(folder: Path) -> None:
    """Static INT8 from max ranges: which MatMuls stay float, and the embeddings.

    Then the range of the least sensitive layer's value is stretched: the search has to name it.
    """
    assets = assets_folder("models/minilm.onnx")
    if assets is None or assets_folder("sts/calib") is None:
        return
    qir = transform(assets / "models/minilm.onnx", folder)
    table, qtable = folder / "max", folder / "m.qtable"
    data = ("--dataset", assets / "sts/calib", "--symmetric")
    run("run_calibration", folder / "c.json", qir, *data[:2], "--cali_method", "max", "-o", table)
    given = ("--calibration_table", table, "--expected_cos", 0.993, "-o", qtable)
    found = run("run_sensitive_layer", folder / "s.json", qir, *data, *given)
    models = {"float": assets / "models/minilm.onnx"}
    for name, ranges, more in (
        ("INT8, max ranges", table, ()),
        ("mixed, new table", folder / "m_new_cali_table", ("--quantize_table", qtable)),
    ):
        models[name] = out = folder / f"{len(models)}.onnx"
        # What model_deploy would reject is measured all the same.
        near = ("--symmetric", "--tolerance", "0,0")
        deploy = ("--mlir", qir, "--calibration_table", ranges, "--model", out, *near)
        audit = run("model_deploy", folder / "d.json", *deploy, *more)["audit"]
        print(f"{name}: {audit['integer']} products integer, {audit['float']} float")
    pairs = Pairs.load(assets / "sts/headlines_val.npz")
    made: dict[str, Any] = {}
    for name, path in models.items():
        net = session(path)
        rows = [batch(pairs, [row]) for row in range(len(pairs.ids))]
        made[name] = np.concatenate(
            [embedding(net.run(None, f)[0], f["attention_mask"]) for f in rows]
        )
    likeness = {n: (e * made["float"]).sum(-1) for n, e in made.items()}
    rows = [[n, f"{v.mean():.5f}", f"{v.min():.5f}"] for n, v in likeness.items() if n != "float"]
    title = f"MiniLM: {len(found['float_layers'])} of 36 MatMuls float {found['float_layers']}"
    print_table(title, ["model", "embedding cosine, mean", "least"], rows)
    _planted(folder, (qir, *data), table, found["ranking"])


def _planted(
    folder: Path, given: tuple[Any, ...], table: Path, ranking: list[dict[str, Any]]
) -> None:
    """Where the layer stands whose operand's range an outlier has stretched, and that range."""
    from qdqc.calibration.table import load_table
    from qdqc.text.qir_files import load

    module, name = load(given[0]), ranking[-1]["name"]
    read = next(n for n in module.graph.nodes() if n.name == name).need("a").name
    lines = []
    for line in table.read_text().splitlines():
        word, *numbers = line.split(" ")
        if word == read and len(numbers) == 3:
            line = " ".join([word, *(repr(_STRETCH * float(n)) for n in numbers)])
        lines.append(line)
    planted = folder / "planted"
    planted.write_text("\n".join(lines) + "\n")
    shown: list[list[object]] = [["as calibrated", len(ranking), f"{ranking[-1]['loss']:.2e}"]]
    shown[0].append(load_table(table).rows[read].threshold)
    for title, methods in (("its range alone", ""), ("all methods", "kl,max,percentile9999")):
        options = ("--calibration_table", planted, "-o", folder / "p.qtable", "--max_float_layers")
        more = (1, "--quantize_method_list", methods)
        found = run("run_sensitive_layer", folder / "p.json", *given, *options, *more)["ranking"]
        place = [row["name"] for row in found].index(name)
        threshold = load_table(folder / "p_new_cali_table").rows[read].threshold
        shown.append([title, place + 1, f"{found[place]['loss']:.2e}", threshold])
    head = ["searched with", f"place among {len(ranking)}", "loss alone", "threshold afterwards"]
    print_table(f"The range of {read}, which {name} reads, times {_STRETCH}", head, shown)


def _digits(folder: Path) -> None:
    """Six targets between the best scores of all sets of each size; found against smallest."""
    from qdqc.calibration.table import load_table
    from qdqc.data.dataset import open_dataset
    from qdqc.search.strategies.deviations import Parts
    from qdqc.search.strategies.mixes import Mixes
    from qdqc.search.strategies.sensitivity import Sensitivity
    from qdqc.search.strategies.smallest import find_smallest
    from qdqc.search.trials.journal import Journal
    from qdqc.search.trials.mixed_models import MixedModels
    from qdqc.search.trials.objective import Likeness
    from qdqc.search.trials.trials import Trials
    from qdqc.text.qir_files import load

    qir = transform(DIGITS / "digits.onnx", folder)
    table = folder / "table"
    data = DIGITS / "calib.npz"
    run("run_calibration", folder / "c.json", qir, "--dataset", data, "-o", table)
    module, held = load(qir), load_table(table)
    samples = list(open_dataset(data, module.graph, input_num=_INFERENCE))
    output = module.graph.outputs[0].name
    trials = Trials(MixedModels(module), held, samples, Likeness({output: 1.0}))
    search = Sensitivity(trials, {"given": held}, Journal(None, ""))
    search.run()
    ranking = [j.layer.name for j in search.ranking()]
    parts = Parts(trials, search.chosen())
    parts.measure()
    every = Mixes(trials, held, Journal(None, ""), 2.0)
    best = [
        max((every.score(c) for c in combinations(ranking, size)), default=0.0) for size in range(5)
    ]
    top = np.maximum.accumulate(best)
    goals = [
        (size, top[size - 1] + share * (best[size] - top[size - 1]))
        for size, share in ((1, 0.5), (2, 0.4), (2, 0.8), (3, 0.5), (4, 0.4), (4, 0.8))
        if best[size] > top[size - 1]
    ]
    rows: list[list[object]] = []
    for size, goal in goals[:_TARGETS]:
        mixes = Mixes(trials, held, Journal(None, ""), goal)
        find_smallest(mixes, parts, ranking)
        found = mixes.best
        rows.append(
            [f"{goal:.7f}", size, len(found.floats), f"{found.score:.7f}", len(mixes.verified)]
        )
    head = ["target", "smallest of all sets", "found", "score", "models verified"]
    print_table(f"digits: {len(ranking)} layers, {len(every.verified)} sets tried", head, rows)


def _pareto(folder: Path) -> None:
    """Predicted and measured latency along the front."""
    qir = _prepared(folder)
    if qir is None:
        return
    data = ("--dataset", Path(os.environ["QDQC_ASSETS"]) / _CALIB, "--symmetric")
    given = ("--calibration_table", folder / METHODS[0], "--strategy", "pareto", "--points", 8)
    out = folder / "p.qtable"
    found = run("run_qtable", folder / "p.json", qir, *data, *given, "-o", out)
    rows = [
        [
            len(p["float_layers"]),
            f"{p['score']:.6f}",
            f"{p['predicted_ms']:.2f}",
            f"{p['measured_ms']:.2f}",
            f"{p['measured_ms'] / p['predicted_ms'] - 1:+.1%}",
        ]
        for p in found["front"]
    ]
    head = ["float layers", "score", "predicted ms", "measured ms", "off by"]
    print_table("Front of accuracy and latency, one thread", head, rows)


def _kills(folder: Path) -> None:
    """Searches that are killed and started again end in the same tables."""
    qir = _prepared(folder)
    if qir is not None:
        data = Path(os.environ["QDQC_ASSETS"]) / _CALIB
        line = command_line("run_sensitive_layer", qir, "--dataset", data, "--symmetric")
        goal = ["--calibration_table", str(folder / METHODS[0]), "--expected_cos", "0.9985"]
        print_kills([*line, *goal], folder)


if __name__ == "__main__":
    raise SystemExit(main())
