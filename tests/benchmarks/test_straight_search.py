"""The search done straight finds what the trial runner finds, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from straight_search import straight_losses

from qdqc.calibration.table import Table
from qdqc.data.dataset import open_dataset
from qdqc.ir.graph import Module
from qdqc.onnx_io.importer import import_onnx
from qdqc.pipeline.manager import run
from qdqc.quant.deployment import Deployment
from qdqc.runtime.sessions.session import Runner
from qdqc.search.strategies.sensitivity import Sensitivity
from qdqc.search.trials.journal import Journal
from qdqc.search.trials.layers import Layers
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.trials import Trials


@pytest.fixture(scope="module")
def net(tiny_onnx: Path, tiny_data: Path) -> tuple[Module, list[Any], dict[str, Table]]:
    """The tiny network, four samples, and tables of two widths."""
    from qdqc.ir.types import Range

    module = run(import_onnx(str(tiny_onnx), input_shapes={"x": [1, 3, 8, 8]}), "@transform")
    samples = list(open_dataset(tiny_data, module.graph, input_num=4))
    values = [*module.graph.inputs, *(r for n in module.graph.nodes() for r in n.present_results)]
    runner = Runner(module, [v.name for v in values], optimise="off", threads=1)
    found = [runner.run(s) for s in samples]
    tables: dict[str, Table] = {}
    for name, share in (("wide", 3.0), ("narrow", 1.0)):
        rows = {}
        for value in values:
            array = np.stack([f[value.name] for f in found])
            low, high = share * float(array.min()), share * float(array.max())
            rows[value.name] = Range(min(low, 0.0), max(high, 0.0), max(-low, high))
        tables[name] = Table(rows=rows, header={"method": name})
    return module, samples, tables


@pytest.mark.parametrize("symmetric", [False, True])
def test_every_loss_is_the_same(
    net: tuple[Module, list[Any], dict[str, Table]], symmetric: bool
) -> None:
    module, samples, tables = net
    models = MixedModels(module, Deployment(symmetric=symmetric))
    straight = straight_losses(models, tables, samples)
    trials = Trials(models, tables["wide"], samples, Likeness({"y": 1.0}))
    search = Sensitivity(trials, tables, Journal(None, ""))
    search.run(screened=0)
    ours = {k: {m: t.loss for m, t in j.tried.items()} for k, j in search.judged.items()}
    assert ours == straight
    assert {j.method for j in search.judged.values()} == {"wide", "narrow"}, "a choice was made"
    for key, losses in straight.items():
        assert search.judged[key].method == min(losses, key=losses.__getitem__)


def test_a_loss_is_that_of_rounding_the_input_in_numpy(
    net: tuple[Module, list[Any], dict[str, Table]],
) -> None:
    """The first layer is the input: 255 steps between its ends, and all else is float."""
    module, samples, tables = net
    wide = tables["wide"]
    straight = straight_losses(MixedModels(module), {"wide": wide}, samples)
    row, plain = wide.rows["x"], Runner(module, optimise="off", threads=1)
    scale = (row.max - row.min) / 255
    zero = round(-row.min / scale)
    near = []
    for sample in samples:
        exact = plain.run(sample)["y"].ravel().astype(np.float64)
        steps = np.clip(np.round(sample["x"] / np.float32(scale)) + zero, 0, 255) - zero
        found = plain.run({"x": (steps * np.float32(scale)).astype(np.float32)})["y"].ravel()
        near.append(found @ exact / np.sqrt((found @ found) * (exact @ exact)))
    assert straight["values of x"]["wide"] == pytest.approx(1 - np.mean(near), rel=0.02)


def test_the_layers_are_those_of_the_search(
    net: tuple[Module, list[Any], dict[str, Table]],
) -> None:
    module, samples, tables = net
    models = MixedModels(module)
    straight = straight_losses(models, {"wide": tables["wide"]}, samples[:1])
    assert list(straight) == [layer.key for layer in Layers(models, tables["wide"]).every]
    assert all(loss >= -1e-9 for losses in straight.values() for loss in losses.values())
