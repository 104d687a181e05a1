"""What the commands of the search write: the qtable, the table that goes with it, the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qdqc.diagnostics import joined
from qdqc.files import Content, write_outputs
from qdqc.versions import own_version

if TYPE_CHECKING:
    from qdqc.search.strategies.strategy import Search

__all__ = ["LOG", "SearchFiles", "qtable_text"]

LOG = "SensitiveLayerSearch"


@dataclass(frozen=True)
class SearchFiles:
    """The files of a search, by the path of its qtable, and what they say of the model.

    ``loss_table`` is where the likeness of layers goes, for a walk; ``plot`` a picture, and
    ``table`` a table that becomes that of the search.
    """

    qtable: str
    model: str
    target: str
    fp_type: str
    loss_table: str | None = None
    plot: str | None = None
    table: Path | None = None

    @property
    def new_table(self) -> Path:
        """``net.qtable`` gives ``net_new_cali_table`` beside it."""
        path = Path(self.qtable)
        return path.with_name(f"{path.stem}_new_cali_table")

    @property
    def log(self) -> Path:
        """The log stands beside the qtable."""
        return Path(self.qtable).with_name(LOG)

    @property
    def losses(self) -> Path:
        """The table of losses stands beside the qtable unless it is named."""
        default = Path(self.qtable).with_name("full_loss_table.txt")
        return Path(self.loss_table) if self.loss_table else default

    def write(self, search: Search, lines: Iterable[str], picture: bytes | None = None) -> None:
        """Write what is known of a search, all of it or nothing. Raises QdqcError."""
        from qdqc.calibration.table import table_files
        from qdqc.search.strategies.walk import loss_table

        files: list[tuple[Path, Content]] = []
        notes = [self._score_of(search)]
        if search.sensitivity is not None:
            log = joined(f"INFO:root:{line}" for line in lines) + "\n"
            files += [*table_files(search.table, self.new_table), (self.log, log)]
            notes.append(f"deploy it with --calibration_table {self.new_table.name}")
        if search.cosines:
            text = loss_table(search.cosines, self.target, self.fp_type)
            files.append((self.losses, text))
        if self.plot and picture is not None:
            files.append((Path(self.plot), picture))
        if self.table is not None:
            files += table_files(search.table, self.table)
        text = qtable_text(self, search.floats, search.moved, notes)
        write_outputs([*files, (Path(self.qtable), text)])

    def _score_of(self, search: Search) -> str:
        score = search.result.score
        reached = "reaches" if score >= search.goal else "does not reach"
        scores = f"INT8 {search.int8:.6f}, with these layers float {score:.6f}"
        return f"score: {scores}, which {reached} {search.goal:.6f}"


def qtable_text(
    files: SearchFiles,
    floats: Sequence[str],
    moved: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> str:
    """The qtable of the nodes that stay float; those that move with them are comments."""
    from qdqc.quant.qtable import print_qtable

    header = {
        "tool": f"qdqc {own_version()}",
        "model": Path(files.model).name,
        "chip": f"{files.target}  mix_mode: {files.fp_type}",
        f"number of {files.fp_type} layer": str(len(floats)),
    }
    comments = [f"# {note}" for note in notes]
    comments += [f"# leaves the integers as well: {name}" for name in sorted(moved)]
    text = print_qtable(dict.fromkeys(floats, files.fp_type), header)
    return f"{joined(comments)}\n{text}" if comments else text
