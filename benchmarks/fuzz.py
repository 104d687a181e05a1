"""Mutants of models and of the files beside them, through the commands, one process a case.

    python benchmarks/fuzz.py [--count 10000] [--seed 0] [--jobs 2] [--kinds models,files,texts]
    python benchmarks/fuzz.py --kinds backend       all of onnx's backend cases, as they are

``models``: small models of many families and onnx's backend cases, with bytes flipped or fields
dropped, doubled and altered, go through transform, calibration, deployment in F32 and two other
modes, and inspection. ``files``: tables, qtables, IR texts, sidecars, npz, caches, journals and
Python files. ``texts``: IR text through the parser alone. onnxruntime runs the source itself and
judges. A case fails that ends in a traceback, another exit code than 0 and 1, a crash or more than
a minute; whose float result is another than the source's; or whose deployed result is not finite
where the source's is. Its number with the seed makes it again (--only KIND:NUMBER).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from command_chain import MODES, Chain
from fuzz_seeds import SIDE_FILE, backend_cases, seeds
from isolated import in_processes
from mutants import mutated_model, mutated_text
from side_files import KINDS, changed_file, prepare

__all__ = ["main"]

_SHARES = {"models": 0.6, "files": 0.3, "texts": 0.1}
_SHOWN = 1500
Work = Callable[[int, Path], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the kinds that were asked for; 1 when one case does what it may not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kinds", default="models,files,texts")
    parser.add_argument("--only", default="", help="KIND:NUMBER, one case again")
    args = parser.parse_args(argv)
    _warm()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        for kind in args.only.partition(":")[:1] if args.only else args.kinds.split(","):
            work = _work(kind, args.seed, Path(name))
            total = len(backend_cases()) if kind == "backend" else int(args.count * _SHARES[kind])
            cases = [int(args.only.partition(":")[2])] if args.only else range(total)
            bad += _run(kind, work, cases, args.jobs)
    return 1 if bad else 0


def _warm() -> None:
    """Load what each case needs, but open no session: those don't survive a fork."""
    import importlib

    import onnxruntime  # noqa: F401  (loaded for the forked processes)

    from qdqc.pipeline.discovery import load_passes

    load_passes()
    for name in ("model_transform", "run_calibration", "model_deploy", "model_inspect"):
        importlib.import_module(f"qdqc.tools.{name}")
    warnings.simplefilter("ignore")
    backend_cases()


def _work(kind: str, seed: int, folder: Path) -> Work:
    """What is done for a case of this kind; its answer are counts, and what is wrong."""
    if kind == "files":
        prepared = folder / "prepared"
        [ended] = in_processes(lambda _, __: prepare(prepared), [0])
        if ended.fault:
            raise RuntimeError(ended.fault)
    one: dict[str, Callable[[random.Random, int], Chain]] = {
        "models": _model,
        "backend": lambda _, case: _backend(case),
        "files": lambda rng, case: changed_file(
            rng, list(KINDS)[case % len(KINDS)], folder / "prepared"
        ),
        "texts": _text,
    }

    def work(case: int, _: Path) -> Any:
        chain = one[kind](random.Random(f"{seed}/{kind}/{case}"), case)
        return [dict(chain.counts), chain.wrong]

    return work


def _run(kind: str, work: Work, cases: Sequence[int], jobs: int) -> int:
    """Run the cases and print their counts; how many failed."""
    start = time.perf_counter()
    total: Counter[str] = Counter()
    bad = 0
    for ended in in_processes(work, cases, jobs):
        counts, wrong = ended.result or ({}, [])
        total += Counter(counts)
        reasons = [*wrong, *([ended.fault] if ended.fault else [])]
        bad += bool(reasons)
        for reason in reasons:
            name = f" {backend_cases()[ended.case][0]}" if kind == "backend" else ""
            print(f"-- {kind}:{ended.case}{name}: {reason[-_SHOWN:]}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{kind}: {len(cases)} cases, {bad} wrong, {seconds:.0f} s")
    for what, count in sorted(total.items()):
        print(f"  {count:6} {what}")
    return bad


def _model(rng: random.Random, case: int) -> Chain:
    """A mutant through the commands: of the families, or every other time of onnx's cases."""
    if case % 2:
        source = rng.choice(backend_cases())[1]
    else:
        source = rng.choice(seeds())
    model = mutated_model(rng, source)
    if model is None:
        return Chain(Counter({"no protobuf": 1}))
    Path(SIDE_FILE[0]).write_bytes(SIDE_FILE[1])
    Path("link.bin").symlink_to("/etc/passwd")
    path = Path("source.onnx")
    path.write_bytes(model.SerializeToString())
    return Chain().through_the_commands(path, rng.sample(MODES, 2))


def _backend(case: int) -> Chain:
    """One of onnx's cases as it is, in every mode."""
    path = Path("source.onnx")
    _, model, inputs = backend_cases()[case]
    path.write_bytes(model.SerializeToString())
    return Chain().through_the_commands(path, feeds=inputs)


def _text(rng: random.Random, _: int) -> Chain:
    """The IR text of a family's model, mutated, through parser, passes and printer."""
    import qdqc

    Path(SIDE_FILE[0]).write_bytes(SIDE_FILE[1])
    Path("source.onnx").write_bytes(rng.choice(seeds()).SerializeToString())
    source = qdqc.import_onnx("source.onnx")
    try:
        module = qdqc.from_text(mutated_text(rng, qdqc.to_text(source)), weights=source)
        qdqc.to_text(qdqc.run(module, "@transform"))
    except qdqc.QdqcError:
        return Chain(Counter({"refused": 1}))
    return Chain(Counter({"read": 1}))


if __name__ == "__main__":
    raise SystemExit(main())
