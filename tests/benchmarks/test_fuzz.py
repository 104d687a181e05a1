"""The fuzzer: what it says of a case that dies, hangs, fails or gives another result."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_chain import Chain, source_run
from fuzz_seeds import SIDE_FILE, seeds
from isolated import Ended, in_processes
from mutants import mutated_bytes, mutated_lines, mutated_model
from onnx import helper


def one(work: Any, limit: float = 20.0) -> Ended:
    [ended] = in_processes(lambda case, folder: work(), [7], 1, limit)
    return ended


def test_a_case_that_is_killed_hangs_or_raises_is_said_to_be_so() -> None:
    assert one(lambda: [1, 2]).result == [1, 2]
    assert "SIGKILL" in str(one(lambda: os.kill(os.getpid(), signal.SIGKILL)).fault)
    assert "hang" in str(one(lambda: time.sleep(30), limit=0.5).fault)
    assert "ZeroDivisionError" in str(one(lambda: 1 / 0).fault)


def test_a_case_lies_in_a_folder_of_its_own_that_goes_with_it() -> None:
    ended = one(lambda: (Path("x").write_text("1"), os.getcwd())[1])
    assert not Path(ended.result).exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path(SIDE_FILE[0]).write_bytes(SIDE_FILE[1])
    return tmp_path


def test_every_family_runs_under_the_judge(folder: Path) -> None:
    for number, model in enumerate(seeds()):
        path = folder / f"{number}.onnx"
        path.write_bytes(model.SerializeToString())
        assert source_run(path) is not None, number


@pytest.mark.parametrize(
    ("op", "complaint"), [("Relu", None), ("Neg", "differs"), ("Sqrt", "is not finite")]
)
def test_another_result_is_seen(folder: Path, op: str, complaint: str | None) -> None:
    for name, kind in (("a.onnx", "Relu"), ("b.onnx", op)):
        values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy"]
        nodes = [helper.make_node(kind, ["x"], ["y"])]
        graph = helper.make_graph(nodes, "g", values[:1], values[1:])
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), name)
    judge = source_run(Path("a.onnx"), {"x": np.array([[1, -1, 2], [3, -2, 1]], np.float32)})
    assert judge is not None
    told = judge.differs(Path("b.onnx"), as_float=True)
    assert told is None if complaint is None else complaint in str(told)


def test_an_unchanged_model_goes_through_the_commands(folder: Path) -> None:
    path = folder / "source.onnx"
    path.write_bytes(seeds()[0].SerializeToString())
    chain = Chain().through_the_commands(path, ["INT8"])
    assert chain.wrong == []
    assert chain.counts["model_deploy INT8: ok"] == chain.counts["model_inspect: ok"] == 1


def test_a_mutant_is_another_and_the_same_for_a_seed() -> None:
    text, data = "a 1 2\nb 3 4\n", bytes(range(256))
    for seed in range(20):
        first, again = random.Random(seed), random.Random(seed)
        assert mutated_lines(first, text) == mutated_lines(again, text)
        assert mutated_bytes(first, data) == mutated_bytes(again, data)
        models = [mutated_model(rng, seeds()[0]) for rng in (first, again)]
        assert models[0] == models[1]
    assert sum(mutated_bytes(random.Random(s), data) != data for s in range(20)) > 15
