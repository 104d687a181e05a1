"""What the commands of the search write: the qtable, the new table and the log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdqc.files import write_together, write_whole
from qdqc.versions import own_version

if TYPE_CHECKING:
    from qdqc.calibration.table import Table
    from qdqc.report.search_plot import SearchPlot

__all__ = [
    "LOG",
    "log_path",
    "new_table_path",
    "qtable_text",
    "refuse_files",
    "write_plot",
    "write_search",
]

LOG = "SensitiveLayerSearch"


def new_table_path(qtable: str) -> Path:
    """``net.qtable`` gives ``net_new_cali_table`` beside it."""
    path = Path(qtable)
    return path.with_name(f"{path.stem}_new_cali_table")


def log_path(qtable: str) -> Path:
    """The log stands beside the qtable."""
    return Path(qtable).with_name(LOG)


def refuse_files(args: Any, outputs: Sequence[str | Path]) -> None:
    """What can be told of files before a search begins. Raises QdqcError.

    No output is an input, all can be written, and a plot can be drawn.
    """
    from qdqc.files import refuse_inputs, refuse_unwritable

    written = [*outputs, *filter(None, [args.plot])]
    given = (args.dataset, args.data_list, args.labels, args.metric, args.post_process)
    refuse_inputs(written, [args.model, args.calibration_table, *filter(None, given)])
    refuse_unwritable(written)
    if args.plot:
        from qdqc.report.search_plot import check_plot

        check_plot(args.plot)


def qtable_text(
    args: Any, floats: Sequence[str], moved: Collection[str] = (), notes: Iterable[str] = ()
) -> str:
    """The qtable of the nodes that stay float; those that move with them are comments."""
    from qdqc.quant.qtable_text import print_qtable

    header = {
        "tool": f"qdqc {own_version()}",
        "model": Path(args.model).name,
        "chip": f"{args.target}  mix_mode: {args.fp_type}",
        f"number of {args.fp_type} layer": str(len(floats)),
    }
    told = [f"# {' '.join(note.split())}" for note in notes]
    told += [f"# leaves the integers as well: {name}" for name in sorted(moved)]
    mode: str = args.fp_type
    text = print_qtable(dict.fromkeys(floats, mode), header)
    return "\n".join([*told, text]) if told else text


def write_search(args: Any, qtable: str, table: Table, lines: Iterable[str]) -> None:
    """All files of a search, together or none of them. Raises QdqcError."""
    from qdqc.calibration.table import print_table

    log = "".join(f"INFO:root:{line}\n" for line in lines)
    path: str = args.quantize_table
    files = [(new_table_path(path), print_table(table)), (log_path(path), log)]
    write_together([*files, (Path(path), qtable)])


def write_plot(args: Any, found: Callable[[], SearchPlot]) -> None:
    """The plot where one was asked for; the other files are written before it. Raises QdqcError."""
    if args.plot:
        from qdqc.report.search_plot import draw

        write_whole(args.plot, draw(found(), args.plot))
