"""Tables as Markdown, with columns that line up when read as plain text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["print_table", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column stands left, the others right.

    Raises ValueError when a row has another length than the head.
    """
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    if any(len(row) != len(head) for row in cells):
        raise ValueError(f"each row needs {len(head)} cells")
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join(_line(row, widths) for row in (cells[0], rule, *cells[1:]))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table under a heading."""
    print(f"\n## {title}\n{table(head, rows)}", flush=True)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    sides = zip(row, widths, strict=True)
    cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(sides)]
    return f"| {' | '.join(cells)} |"
