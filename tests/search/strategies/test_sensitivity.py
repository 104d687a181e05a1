"""Each layer takes the method that serves it best; what was found once is not run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_nets import attention, residual, samples_of, straight_outputs, table_of

from qdqc.calibration.table import Table
from qdqc.ir.graph import Module
from qdqc.kept_folder import KeptFolder
from qdqc.runtime.comparison.compare import cosine
from qdqc.runtime.sessions.session import Runner
from qdqc.search.strategies.sensitivity import Judged, Sensitivity
from qdqc.search.trials.journal import SUFFIX, Journal
from qdqc.search.trials.mixed_models import MixedModels
from qdqc.search.trials.objective import Likeness
from qdqc.search.trials.trials import Loss, Trials


def search_of(
    module: Module, folder: Path | None = None, shares: tuple[float, ...] = (3.0, 1.0, 0.6)
) -> Sensitivity:
    samples = samples_of(module, 6)
    tables = {f"share{s}": table_of(module, samples, s) for s in shares}
    names = [v.name for v in module.graph.outputs]
    goal = Likeness({n: 1 / len(names) for n in names})
    trials = Trials(MixedModels(module), next(iter(tables.values())), samples, goal)
    kept = None if folder is None else KeptFolder(folder, "search", SUFFIX)
    return Sensitivity(trials, tables, Journal(kept, "key"))


def test_losses_are_those_of_whole_models(tmp_path: Path) -> None:
    """The first layers in order, whose inputs no method has changed yet."""
    module = residual()
    search = search_of(module)
    search.run(screened=0)
    samples = list(search.trials.samples)
    plain = Runner(module, threads=1)
    exact = [plain.run(s)["y"] for s in samples]
    base = search.tables[search.base]
    first = search.tables[search.judged["values of x"].method].rows["x"]
    for method, table in search.tables.items():
        rows = {**base.rows, "x": first, "a": table.rows["a"]}
        mixed = Table(rows=rows, channel_means=base.channel_means)
        whole = straight_outputs(module, mixed, samples, ["a"], tmp_path)
        near = [cosine(o["y"], e) for o, e in zip(whole, exact, strict=True)]
        assert search.judged["a"].tried[method].loss == pytest.approx(
            1.0 - float(np.mean(near)), abs=1e-15
        )


def test_the_best_method_is_taken_and_its_rows_enter_the_table() -> None:
    search = search_of(residual())
    search.run(screened=0)
    table = search.table()
    for judged in search.judged.values():
        assert judged.loss == min(found.loss for found in judged.tried.values())
        for value in judged.layer.ranged:
            assert table.rows[value.name] == search.tables[judged.method].rows[value.name]
    base = search.tables[search.base]
    touched = {v.name for j in search.judged.values() for v in j.layer.ranged}
    assert all(table.rows[n] == r for n, r in base.rows.items() if n not in touched)
    assert table.channel_means == base.channel_means
    assert any(j.method != search.base for j in search.judged.values()), "no choice was made"
    losses = [j.loss for j in search.ranking()]
    assert losses == sorted(losses, reverse=True)
    assert all(j.layer.integer for j in search.ranking())


def test_equal_scales_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    held_search = search_of(residual(), shares=(1.0, 0.5))
    wide, narrow = held_search.tables.values()
    tables = {"a": wide, "b": narrow, "c": wide, "d": narrow}
    search = Sensitivity(held_search.trials, tables, Journal(None, ""))
    counts: list[int] = []
    held = Trials.losses

    def counted(self: Trials, layer: Any, variants: Any, *more: Any) -> list[Loss]:
        counts.append(len(variants))
        return held(self, layer, variants, *more)

    monkeypatch.setattr(Trials, "losses", counted)
    search.run(screened=0)
    assert max(counts) == 2
    assert len(counts) == len(search.trials.layers.every)


def test_a_choice_changes_what_later_layers_read() -> None:
    """A layer is tried with the best ranges so far on its operands."""
    search = search_of(residual())
    search.run(screened=0)
    moved = [j for j in search.judged.values() if j.method != search.base and j.layer.ranged]
    name = moved[0].layer.ranged[0].name
    chosen = search.chosen()
    assert chosen[name] != search_of(residual()).chosen()[name]


def test_the_best_method_of_a_few_samples_is_tried_on_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The losses that layers are ranked by are those of the whole search, to the bit."""
    monkeypatch.setattr("qdqc.search.strategies.sensitivity._REPEATED", 0)
    search, exact = search_of(residual()), search_of(residual())
    search.run(screened=2, ranked=6)
    exact.run(screened=0)
    alike = 0
    for key, judged in search.judged.items():
        assert judged.samples == 6
        if judged.method != exact.judged[key].method:
            break  # those behind it read other ranges
        assert judged.loss == exact.judged[key].loss
        left = [found for m, found in judged.tried.items() if found.loss != judged.loss]
        assert all(found.samples == 2 for found in left)
        alike += 1
    assert alike >= 3


def test_a_method_that_was_left_behind_is_not_the_best() -> None:
    """Its loss on a few samples may be lower than that of the best on all."""
    layer: Any = None
    judged = Judged(layer, {"a": Loss(0.1, 2), "b": Loss(0.3, 6), "c": Loss(0.3, 6)})
    assert (judged.method, judged.loss, judged.samples) == ("b", 0.3, 6)
    assert Judged(layer, {"a": Loss(0.1, 6), "b": Loss(0.3, 6)}).method == "a"


def test_the_worst_layers_are_tried_by_all_methods_on_all_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qdqc.search.strategies.sensitivity._REPEATED", 3)
    search = search_of(residual())
    told: list[tuple[int, int]] = []
    search.progress = lambda done, total, worst: told.append((done, total))
    search.run(screened=2, ranked=4)
    whole = len(search.trials.layers.every) + 3
    assert told == [(n, whole) for n in range(1, whole + 1)]
    tried = {k: {t.samples for t in j.tried.values()} for k, j in search.judged.items()}
    assert sum(samples == {6} for samples in tried.values()) == 3
    assert all(max(samples) in (4, 6) for samples in tried.values())
    assert {2, 4} in tried.values(), "what was left behind stays with its few samples"


@pytest.mark.parametrize("make", [residual, attention])
def test_on_all_samples_or_more_nothing_is_screened(make: Any) -> None:
    found = []
    for screened in (0, 6, 7, -1):
        search = search_of(make())
        search.run(screened=screened)
        found.append({k: dict(j.tried) for k, j in search.judged.items()})
    assert all(other == found[0] for other in found)
    assert all(t.samples == 6 for tried in found[0].values() for t in tried.values())


def test_a_journal_saves_all_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = search_of(attention(), tmp_path)
    first.run(screened=3)
    monkeypatch.setattr(Trials, "losses", lambda *_: pytest.fail("a trial was run again"))
    second = search_of(attention(), tmp_path)
    assert second.journal.taken_up > 0
    second.run(screened=3)
    assert {k: dict(j.tried) for k, j in first.judged.items()} == {
        k: dict(j.tried) for k, j in second.judged.items()
    }
    assert first.table() == second.table()


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    whole = search_of(residual())
    whole.run(screened=0)
    for stop in (1, 3, 5):
        cut = search_of(residual(), tmp_path)

        def interrupt(done: int, total: int, worst: str, at: int = stop) -> None:
            if done == at:
                raise KeyboardInterrupt

        cut.progress = interrupt
        with pytest.raises(KeyboardInterrupt):
            cut.run(screened=0)
        assert len(cut.judged) == stop
        assert cut.table().rows.keys() == whole.table().rows.keys()
    last = search_of(residual(), tmp_path)
    assert last.journal.taken_up == 5
    last.run(screened=0)
    assert last.table() == whole.table()
