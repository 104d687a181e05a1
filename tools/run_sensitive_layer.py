"""run_sensitive_layer: find the layers that INT8 costs most, and the fewest to leave float."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qdqc.diagnostics import EXIT_OK
from qdqc.tools.arguments import names
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.data_options import count
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.progress import Progress
from qdqc.tools.search_files import (
    log_path,
    new_table_path,
    qtable_text,
    refuse_files,
    write_plot,
    write_search,
)
from qdqc.tools.search_options import DEFAULT_METHODS, Request, add_search_options

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.report.search_plot import SearchPlot
    from qdqc.search.strategies.mixes import Mix, Mixes
    from qdqc.search.strategies.sensitivity import Sensitivity
    from qdqc.search.trials.trials import Trials

__all__ = ["LayerSearch", "main", "search_layers", "sensitive_layer_parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(sensitive_layer_parser(), search_layers, argv)


def sensitive_layer_parser() -> CommandParser:
    """The command's options."""
    parser = CommandParser(
        "run_sensitive_layer",
        "Try each layer alone in INT8, rank them by what they lose, choose their ranges, and "
        "write the fewest float layers that reach the goal as a qtable.",
        "run_sensitive_layer net.qir --dataset photos/ --calibration_table net.cali_table "
        "-o net.qtable",
    )
    add_search_options(parser)
    add = parser.add_argument
    add(
        "--max_float_layers",
        type=count,
        metavar="N",
        help="the N worst layers stay float (default: as few as reach the goal)",
    )
    add(
        "--quantize_method_list",
        type=names,
        default=DEFAULT_METHODS,
        metavar="A,B",
        help="methods that are tried beside the given table's",
    )
    add(
        "--exact",
        action="store_true",
        help="try all methods on all samples, not on a few first",
    )
    add_plugin_option(parser)
    return parser


def search_layers(invocation: Invocation) -> int:
    """Search as the options say, and write what was found; the exit code."""
    from qdqc.text.qir_files import load

    args = invocation.args
    qtable: str = args.quantize_table
    refuse_files(args, [qtable, new_table_path(qtable), log_path(qtable)])
    search = LayerSearch(invocation, Request(invocation, load(args.model)))
    try:
        search.run()
    except KeyboardInterrupt:
        if not search.write():
            raise
        told = "interrupted: the files hold what is known so far"
        again = "" if args.no_cache else "; the same command goes on from there"
        raise KeyboardInterrupt(told + again) from None
    search.write()
    search.tell()
    return EXIT_OK


@dataclass
class LayerSearch:
    """One search of sensitive layers; its state is what can be written at any time."""

    invocation: Invocation
    request: Request
    started: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    sensitivity: Sensitivity | None = None
    mixes: Mixes | None = None
    int8: float | None = None
    chosen: tuple[str, ...] | None = None

    def run(self) -> None:
        """Check INT8, rank the layers, and choose the float ones. Raises QdqcError."""
        from qdqc.search.strategies.mixes import Mixes
        from qdqc.search.strategies.sensitivity import Sensitivity

        args, request = self.request.args, self.request
        request.check()
        tables = request.tables(args.quantize_method_list)
        trials = request.trials()
        journal = request.journal
        goal = request.goal_of(trials.ideal)
        self.log(f"quantize_method_list ={list(tables)}")
        self.log(f"run float mode: {args.model}")
        self.mixes = Mixes(trials, request.base, journal, goal)
        self.int8 = self.mixes.score()
        self.log(f"run int8 mode: {args.model}")
        self.log(f"all_int8_cos={self.int8!r}")
        self.log(f"all search layer number: {len(trials.layers.integer)}")
        with self.progress("search", "layer") as progress:
            self.sensitivity = Sensitivity(trials, tables, journal, progress.show)
            self.sensitivity.run(screened=request.screened)
        self._take_table(trials, goal)
        if args.max_float_layers is not None:
            ranking = [j.layer.name for j in self.sensitivity.ranking()]
            self.chosen = tuple(ranking[: args.max_float_layers])
            self.mixes.score(self.chosen)
        else:
            self._find_smallest()

    def _take_table(self, trials: Trials, goal: float) -> None:
        """Go on with the new table, unless the whole INT8 model is better with the given one."""
        from qdqc.search.strategies.mixes import Mixes

        assert self.sensitivity is not None
        assert self.mixes is not None
        new = Mixes(trials, self.sensitivity.table(), self.request.journal, goal)
        if new.score() >= self.mixes.score():
            self.mixes = new
        else:
            self.invocation.tell("the given table serves the whole model better: it is kept")

    def _find_smallest(self) -> None:
        from qdqc.search.strategies.smallest import find_smallest

        assert self.sensitivity is not None
        assert self.mixes is not None
        if self.mixes.reaches(()):
            return
        parts = self.sensitivity.parts()
        with self.progress("parts", "layer") as progress:
            parts.measure(progress.show)
        with self.progress("mixed models", "model") as progress:
            verified = 0

            def told(mix: Mix) -> None:
                nonlocal verified
                verified += 1
                best = self.mixes.best if self.mixes else mix
                progress.show(verified, 0, f"best {best.score:.6f}, {len(best.floats)} float")

            self.mixes.told = told
            find_smallest(self.mixes, parts, [j.layer.name for j in self.sensitivity.ranking()])

    @property
    def result(self) -> Mix:
        """The mixed model as it stands."""
        from qdqc.search.strategies.mixes import Mix

        assert self.mixes is not None
        if self.chosen is not None:
            return Mix(frozenset(self.chosen), self.mixes.score(self.chosen))
        return self.mixes.best

    @property
    def table(self) -> Table:
        """The table that goes with the result."""
        assert self.mixes is not None
        return self.mixes.table

    def floats(self) -> list[str]:
        """The float layers, the most sensitive first."""
        assert self.sensitivity is not None
        return [
            j.layer.name for j in self.sensitivity.ranking() if j.layer.name in self.result.floats
        ]

    def write(self) -> bool:
        """Write all files from what is known; False where nothing is."""
        from qdqc.report.sensitivity_text import ranking_lines

        if self.mixes is None or self.sensitivity is None or self.int8 is None:
            return False
        layers = self.mixes.trials.layers
        mix, floats = self.result, self.floats()
        moved = set(floats).union(layers.moved_with(mix.floats)) - set(floats)
        table = new_table_path(self.request.args.quantize_table).name
        reached = "reaches" if mix.score >= self.mixes.goal else "does not reach"
        told = f"INT8 {self.int8:.6f}, with these layers float {mix.score:.6f}"
        notes = [
            f"score: {told}, which {reached} {self.mixes.goal:.6f}",
            f"deploy it with --calibration_table {table}",
        ]
        lines = [
            *self.lines,
            *ranking_lines(self.sensitivity.ranking()),
            f"set_fp_layer_list = {floats}",
            ">>>run result:",
            f"int8 outputs_cos:{self.int8:.6f} old",
            f"mix model outputs_cos:{mix.score:.6f}",
            f"Output mix quantization table to {self.request.args.quantize_table}",
            f"total time:{time.monotonic() - self.started:.3f}",
        ]
        text = qtable_text(self.request.args, floats, moved, notes)
        write_search(self.request.args, text, self.table, lines)
        write_plot(self.request.args, self._plot)
        self._report(floats)
        return True

    def _plot(self) -> SearchPlot:
        from qdqc.report.search_plot import SearchPlot

        assert self.sensitivity is not None
        assert self.mixes is not None
        layers, judged = self.mixes.trials.layers.integer, self.sensitivity.judged
        losses = {x.name: judged[x.key].loss for x in layers if x.key in judged}
        return SearchPlot(
            title=f"{self.request.args.model}: INT8 {self.int8:.6f}",
            losses=losses,
            measure="loss alone in INT8",
            verified=self.mixes.verified.values(),
            chosen=self.result,
            goal=self.mixes.goal,
        )

    def _report(self, floats: list[str]) -> None:
        from qdqc.report.sensitivity_text import ranking_entries

        assert self.sensitivity is not None
        self.invocation.report |= {
            "int8_cos": self.int8,
            "mix_cos": self.result.score,
            "float_layers": floats,
            "ranking": ranking_entries(self.sensitivity, self.table),
        }

    def tell(self) -> None:
        """The closing table, and what was written."""
        from qdqc.report.sensitivity_text import render_worst

        assert self.sensitivity is not None
        assert self.mixes is not None
        args, mix, floats = self.request.args, self.result, self.floats()
        self.invocation.tell("the layers that lose most alone in INT8:")
        self.invocation.tell(render_worst(self.sensitivity, self.table, floats))
        self.invocation.tell(
            f"INT8 {self.int8:.6f}, mixed {mix.score:.6f} with {len(floats)} of "
            f"{len(self.mixes.trials.layers.integer)} layers float"
        )
        if mix.score < self.mixes.goal:
            self.invocation.warn(
                f"no set that was tried reaches {self.mixes.goal:.6f}; the best one is written"
            )
        written = f"{args.quantize_table}, {new_table_path(args.quantize_table)}"
        self.invocation.tell(f"wrote {written} and {log_path(args.quantize_table)}")
        if args.plot:
            self.invocation.tell(f"wrote {args.plot}")

    def log(self, line: str) -> None:
        """A line of the log; told with ``-v``."""
        self.lines.append(line)
        if self.invocation.verbosity > 0:
            self.invocation.tell(line)

    def progress(self, what: str, unit: str) -> Progress:
        """Progress for people, where they want it."""
        return Progress(what, shown=self.invocation.verbosity >= 0, unit=unit)


if __name__ == "__main__":
    raise SystemExit(main())
