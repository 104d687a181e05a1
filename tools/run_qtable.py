"""run_qtable: search the layers that stay float, by a walk, by a metric, or by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.diagnostics import EXIT_OK
from qdqc.tools.arguments import finite, names
from qdqc.tools.command import CommandParser, Invocation, execute
from qdqc.tools.data_options import count
from qdqc.tools.ir_options import add_plugin_option
from qdqc.tools.progress import Progress
from qdqc.tools.search_files import qtable_text, refuse_files, write_plot
from qdqc.tools.search_options import DEFAULT_METHODS, Request, add_search_options

if TYPE_CHECKING:
    from qdqc.report.search_plot import SearchPlot
    from qdqc.search.strategies.mixes import Mix, Mixes
    from qdqc.search.strategies.pareto import Point

__all__ = ["main"]

_RANKED = 300


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return execute(_parser(), _search, argv)


def _parser() -> CommandParser:
    parser = CommandParser(
        "run_qtable",
        "Search a qtable: mix walks from the input by the likeness of layers, accuracy takes "
        "layers back until a metric is near the float one, pareto weighs accuracy and time.",
        "run_qtable net.qir --dataset photos/ --calibration_table net.cali_table "
        "--strategy pareto --max_latency 3.5 -o net.qtable",
    )
    add_search_options(parser)
    add = parser.add_argument_group("strategies").add_argument
    strategies = ("mix", "accuracy", "pareto")
    add("--strategy", default="mix", choices=strategies, help="how layers are chosen")
    add("--min_layer_cos", type=finite, default=0.99, metavar="C", help="mix: layers below it")
    add("--loss_table", metavar="F", help="mix: likeness of layers (default: full_loss_table.txt)")
    add("--ranking_num", type=count, default=_RANKED, metavar="N", help="accuracy: ranked on them")
    add("--max_num_iterations", type=count, default=0, metavar="N", help="accuracy: 0 for all")
    add("--max_latency", type=finite, metavar="MS", help="pareto: milliseconds that a run may take")
    add("--points", type=count, default=7, metavar="N", help="pareto: models of the front")
    add(
        "--quantize_method_list",
        type=names,
        default=DEFAULT_METHODS,
        metavar="A,B",
        help="pareto: methods whose ranges are tried",
    )
    add_plugin_option(parser)
    return parser


def _search(invocation: Invocation) -> int:
    from qdqc.text.qir_files import load

    args = invocation.args
    outputs = [args.quantize_table]
    if args.strategy == "mix":
        outputs.append(loss_path(args))
    refuse_files(args, outputs)
    search = TableSearch(invocation, Request(invocation, load(args.model)))
    try:
        search.run()
    except KeyboardInterrupt:
        if not search.write():
            raise
        raise KeyboardInterrupt(
            "interrupted: the qtable holds the best model that was verified"
        ) from None
    search.write()
    search.tell()
    return EXIT_OK


def loss_path(args: Any) -> Path:
    """Where the loss table goes: beside the qtable unless it is named."""
    default = Path(args.quantize_table).with_name("full_loss_table.txt")
    return Path(args.loss_table) if args.loss_table else default


@dataclass
class TableSearch:
    """One search by a strategy; its state is what can be written at any time."""

    invocation: Invocation
    request: Request
    mixes: Mixes | None = None
    int8: float | None = None
    cosines: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    point: Point | None = None

    def run(self) -> None:
        """Score INT8, then search by the strategy. Raises QdqcError."""
        from qdqc.search.strategies.mixes import Mixes

        request, args = self.request, self.request.args
        request.check()
        trials = request.trials()
        goal = request.goal_of(trials.ideal)
        self.mixes = Mixes(trials, request.base, request.journal, goal)
        self.int8 = self.mixes.score()
        {"mix": self._mix, "accuracy": self._accuracy, "pareto": self._pareto}[args.strategy]()

    def _mix(self) -> None:
        from qdqc.search.strategies.walk import Step, layer_cosines, walk

        mixes, args = self._mixes, self.request.args
        with self._progress("layers", "sample") as progress:
            self.cosines = layer_cosines(mixes.trials, mixes.table, progress.show)
        self.losses = {n: 1.0 - cos for n, cos in self.cosines.items()}

        def told(step: Step) -> None:
            what = "float from here" if step.kept else "taken back"
            self._note(f"{step.layer.name}: outputs {step.score:.6f}, {what}")

        walk(mixes, self.cosines, args.min_layer_cos, told)

    def _accuracy(self) -> None:
        from qdqc.search.strategies.accuracy import control_accuracy

        args = self.request.args
        with self._progress("ranking", "group") as progress:
            done = control_accuracy(
                self._mixes,
                ranked=args.ranking_num,
                iterations=args.max_num_iterations,
                told=lambda what, done, total: progress.show(done, total, what),
            )
        for step in done:
            self._note(
                f"{', '.join(sorted(step.group))}: {step.score:.6f}"
                f"{'' if step.kept else ', taken back'}"
            )
        self.losses = {min(step.group): step.gain for step in done}

    def _pareto(self) -> None:
        from qdqc.search.costs.node_costs import measure_costs
        from qdqc.search.strategies.pareto import choose_point, front, measure_front
        from qdqc.search.strategies.sensitivity import Sensitivity

        mixes, args = self._mixes, self.request.args
        search = Sensitivity(
            mixes.trials, self.request.tables(args.quantize_method_list), self.request.journal
        )
        with self._progress("search", "layer") as progress:
            search.told = progress.show
            search.run(screened=self.request.screened)
        self.losses = {j.layer.name: j.loss for j in search.ranking()}
        costs = measure_costs(mixes.trials, mixes.table, mixes.trials.samples[0])
        sets = front(costs, self.losses, max(2, args.points))
        with self._progress("front", "model") as progress:
            self.points = measure_front(mixes, costs, sets, progress.show)
        limit = None if args.max_latency is None else args.max_latency / 1000
        self.point = choose_point(self.points, mixes.goal, limit)

    @property
    def _mixes(self) -> Mixes:
        assert self.mixes is not None
        return self.mixes

    @property
    def result(self) -> Mix:
        """The model that is written."""
        from qdqc.search.strategies.mixes import Mix

        if self.point is not None:
            return Mix(self.point.floats, self.point.score)
        return self._mixes.best

    def write(self) -> bool:
        """Write the qtable, and the loss table of a walk; False where nothing is known."""
        from qdqc.files import write_together
        from qdqc.search.strategies.walk import loss_table

        if self.mixes is None or self.int8 is None:
            return False
        args, mix = self.request.args, self.result
        layers = self._mixes.trials.layers
        floats = [x.name for x in layers.integer if x.name in mix.floats]
        moved = layers.moved_with(mix.floats) - mix.floats
        reached = "reaches" if mix.score >= self._mixes.goal else "does not reach"
        told = f"INT8 {self.int8:.6f}, with these layers float {mix.score:.6f}"
        notes = [f"score: {told}, which {reached} {self._mixes.goal:.6f}"]
        files = [(Path(args.quantize_table), qtable_text(args, floats, moved, notes))]
        if args.strategy == "mix":
            text = loss_table(self.cosines, args.target, args.fp_type)
            files.append((loss_path(args), text))
        write_together(files)
        write_plot(args, self._plot)
        self._report(floats)
        return True

    def _plot(self) -> SearchPlot:
        from qdqc.report.search_plot import SearchPlot

        args = self.request.args
        measure = {"mix": "1 - cosine of the layer", "accuracy": "gain in float"}
        limit = args.max_latency if args.strategy == "pareto" else None
        return SearchPlot(
            title=f"{args.model}, {args.strategy}: INT8 {self.int8:.6f}",
            losses={
                x.name: self.losses[x.name]
                for x in self._mixes.trials.layers.integer
                if x.name in self.losses
            },
            measure=measure.get(args.strategy, "loss alone in INT8"),
            verified=self._mixes.verified.values(),
            chosen=self.result,
            goal=self._mixes.goal,
            points=self.points,
            limit=None if limit is None else limit / 1000,
        )

    def _report(self, floats: list[str]) -> None:
        ops = {x.name: x.op for x in self._mixes.trials.layers.integer}
        rows = self._mixes.table.rows
        method = self._mixes.table.header.get("method", "given")
        order = sorted(self.losses, key=lambda n: -self.losses[n])
        self.invocation.report |= {
            "int8_cos": self.int8,
            "mix_cos": self.result.score,
            "float_layers": floats,
            "ranking": [
                {
                    "name": name,
                    "op": ops.get(name, ""),
                    "loss": self.losses[name],
                    "method": method,
                    "threshold": rows[name].threshold if name in rows else None,
                }
                for name in order
            ],
            "front": [
                {
                    "float_layers": sorted(p.floats),
                    "score": p.score,
                    "predicted_ms": 1000 * p.foretold,
                    "measured_ms": 1000 * p.seconds,
                }
                for p in self.points
            ],
        }

    def tell(self) -> None:
        """What was found, and what was written."""
        args, mix = self.request.args, self.result
        if self.points:
            self.invocation.tell("predicted  measured     score  float layers")
        for point in self.points:
            mark = "  chosen" if point is self.point else ""
            self.invocation.tell(
                f"{1000 * point.foretold:6.2f} ms {1000 * point.seconds:6.2f} ms  "
                f"{point.score:.6f}  {len(point.floats)}{mark}"
            )
        self.invocation.tell(f"int8 outputs_cos:{self.int8:.6f} old")
        self.invocation.tell(f"mix model outputs_cos:{mix.score:.6f}")
        if mix.score < self._mixes.goal:
            self.invocation.warn(
                f"no model that was tried reaches {self._mixes.goal:.6f}; the best one is written"
            )
        self.invocation.tell(f"Output mix quantization table to {args.quantize_table}")
        if args.plot:
            self.invocation.tell(f"wrote {args.plot}")

    def _note(self, line: str) -> None:
        if self.invocation.verbosity > 0:
            self.invocation.tell(line)

    def _progress(self, what: str, unit: str) -> Progress:
        return Progress(what, shown=self.invocation.verbosity >= 0, unit=unit)


if __name__ == "__main__":
    raise SystemExit(main())
