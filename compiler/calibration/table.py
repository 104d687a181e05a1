"""The calibration table: one row ``name threshold min max`` for each activation value.

Comments come first, then ``# op_name    threshold    min    max`` and the rows. A comment that
names a block opens it: ``#observed`` holds ``name min max``, ``#int4_th`` rows as above,
``#asym_op`` and ``#int4_op`` names, ``#weight_scale`` rows ``{op}_weight N s0 ... [N zp0 ...]``.
A line ``#channel_mean name N m0 ...`` holds the means per channel of what a product reads.
A name with blanks, or with ``#`` or ``"`` at its beginning, is written as a JSON string.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from qdqc.diagnostics import QdqcError, visible
from qdqc.files import Content, read_text, write_outputs
from qdqc.ir.loc import Loc, Position
from qdqc.ir.types import Range

if TYPE_CHECKING:
    from qdqc.calibration.kept_samples import KeptSamples

__all__ = [
    "IMAGES",
    "Table",
    "WeightScale",
    "load_table",
    "parse_table",
    "print_table",
    "save_table",
    "table_files",
]

KEPT_SAMPLES = "kept samples"
"""The key of the header that says how many samples lie beside the table, with their digest."""

IMAGES = "images"
"""The key of the header that says how images became inputs, where the samples were images."""

TITLE = "op_name    threshold    min    max"

_HEADER_NAMES = {
    "mlir": "model",
    "histogram number": "histogram bins",
    "sample number": "samples",
    "quantization threshold calculation method": "method",
}
"""Keys of TPU-MLIR's header, and what they are called here."""

_CHANNEL_MEAN = "#channel_mean"
"""Opens a line of its own, which other readers take for a comment."""

_FP8_BLOCKS = ("#tpu-mlir-fp8", "#mqbench-fp8", "#weight_scale_fp8")


RowT = TypeVar("RowT")


@dataclass(frozen=True)
class WeightScale:
    """Scales of a weight per output channel, with zero points or without."""

    scales: tuple[float, ...]
    zero_points: tuple[float, ...] = ()


@dataclass
class Table:
    """What calibration found out, by the names of values.

    ``observed`` holds the extremes that were seen, which a method may have clipped in
    ``rows``. ``header`` holds the comments ``key: value``; the keys written here are tool,
    libraries, model, digest, seed, mask (where one was given), images (how they became inputs),
    method, histogram bins, samples and kept samples. ``places`` says where a row was read, ``file``
    where the table was. ``samples`` are a few of those that it comes from; those of a table that
    was read lie beside its file.
    """

    rows: dict[str, Range] = field(default_factory=dict)
    observed: dict[str, tuple[float, float]] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)
    int4: dict[str, Range] = field(default_factory=dict)
    asym_ops: tuple[str, ...] = ()
    int4_ops: tuple[str, ...] = ()
    weight_scales: dict[str, WeightScale] = field(default_factory=dict)
    channel_means: dict[str, tuple[float, ...]] = field(default_factory=dict)
    places: dict[str, Position] = field(default_factory=dict, compare=False, repr=False)
    file: str | None = field(default=None, compare=False, repr=False)
    samples: KeptSamples | None = field(default=None, compare=False, repr=False)

    def keep(self, samples: KeptSamples | None) -> None:
        """Let the table carry samples, and its header name them."""
        self.samples = samples
        self.header.pop(KEPT_SAMPLES, None)
        if samples is not None:
            self.header[KEPT_SAMPLES] = samples.text

    def kept(self) -> KeptSamples | None:
        """The samples that the header names. Raises QdqcError where they are not at hand."""
        from qdqc.calibration.kept_samples import kept_beside

        stated = self.header.get(KEPT_SAMPLES)
        if self.samples is None and self.file is not None and stated is not None:
            self.samples = kept_beside(Path(self.file), stated)
        return self.samples

    @property
    def digest(self) -> str:
        """sha256 of the table's text, in hexadecimal."""
        return hashlib.sha256(print_table(self).encode()).hexdigest()

    def as_written(self) -> Table:
        """The table with its numbers as its file has them, which are rounded."""
        written = parse_table(print_table(self), "")
        return replace(written, places=self.places, file=self.file, samples=self.samples)


def print_table(table: Table) -> str:
    """The text of a table; what ``parse_table`` reads back, but for the precision."""
    out = [f"# {key}: {_one_line(value)}" for key, value in table.header.items()]
    out += ["###", f"# {TITLE}"]
    out += [_print_range(name, r) for name, r in table.rows.items()]
    if table.observed:
        out.append("#observed")
        out += [f"{_print_name(n)} {_print(a)} {_print(b)}" for n, (a, b) in table.observed.items()]
    if table.int4:
        out.append("#int4_th")
        out += [_print_range(name, r) for name, r in table.int4.items()]
    for title, names in (("#asym_op", table.asym_ops), ("#int4_op", table.int4_ops)):
        if names:
            out += [title, *(_print_name(n) for n in names)]
    if table.weight_scales:
        out.append("#weight_scale")
        out += [_print_scales(n, w) for n, w in table.weight_scales.items()]
    out += [_print_means(name, means) for name, means in table.channel_means.items() if means]
    return "\n".join(out) + "\n"


def parse_table(text: str, file: str) -> Table:
    """Read a table, of this tool or of TPU-MLIR.

    Raises QdqcError with file and line for a row that has not the fields of its block, for a
    number that is none or not finite, an inverted range, and a name that comes twice with
    different numbers.
    """
    reader = _Reader(file)
    for number, line in enumerate(text.split("\n"), 1):
        reader.read(line.strip(), Position(file, number, 1, line.rstrip(), len(line.strip())))
    return reader.table


def load_table(path: str | Path) -> Table:
    """The table of a file. Raises QdqcError."""
    text = read_text(path, "calibration table", "run_calibration writes one")
    return replace(parse_table(text, str(path)), file=str(path))


def save_table(table: Table, path: str | Path) -> None:
    """Write the file, and the samples that it carries beside it: both or none. Raises QdqcError."""
    write_outputs(table_files(table, Path(path)))


def table_files(table: Table, path: Path) -> list[tuple[Path, Content]]:
    """The files of a table, itself last: samples lie beside it, unless it goes into a pipe."""
    from qdqc.calibration.kept_samples import samples_path

    with contextlib.suppress(QdqcError):  # those of a table from elsewhere may be gone
        table.kept()
    whole = path.exists() and not path.is_file()
    if table.samples is None or whole:
        header = {k: v for k, v in table.header.items() if k != KEPT_SAMPLES}
        return [(path, print_table(replace(table, header=header)))]
    return [(samples_path(path), table.samples.write), (path, print_table(table))]


class _Reader:
    """The state of reading: the table so far and the block that rows belong to."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.table = Table()
        self._readers: dict[str, Callable[[str, list[str], Position], None]] = {
            "": self._row,
            "#observed": self._observed,
            "#int4_th": self._int4_row,
            "#asym_op": self._asym_op,
            "#int4_op": self._int4_op,
            "#weight_scale": self._weight_scale,
            "fp8": self._left_out,
        }
        self._block = ""

    def read(self, line: str, place: Position) -> None:
        if line.startswith("#"):
            self._comment(line, place)
        elif line:
            name, fields = _split(line, place)
            self._readers[self._block](name, fields, place)

    def _comment(self, line: str, place: Position) -> None:
        if line.startswith(_CHANNEL_MEAN + " "):
            name, fields = _split(line.removeprefix(_CHANNEL_MEAN).strip(), place)
            means, rest = _counted(name, fields, place, "name N m0 m1 ...")
            if rest:
                raise _error(f"'{name}': {len(rest)} numbers too many", place)
            self.table.channel_means[name] = means
            return
        block = line.replace(" ", "")
        if block in self._readers:
            self._block = block
            return
        if block.startswith(_FP8_BLOCKS):
            self._block = "fp8"
            return
        key, colon, value = line.lstrip("#").strip().partition(": ")
        if colon and not self.table.rows and self._block == "":
            self.table.header[_HEADER_NAMES.get(key, key)] = value.strip()

    def _left_out(self, name: str, fields: list[str], place: Position) -> None:
        """Rows for fp8, which TPU-MLIR writes behind those for int8."""

    def _row(self, name: str, fields: list[str], place: Position) -> None:
        _enter(self.table.rows, name, _range(name, fields, place), place)
        self.table.places[name] = place

    def _int4_row(self, name: str, fields: list[str], place: Position) -> None:
        _enter(self.table.int4, name, _range(name, fields, place), place)

    def _observed(self, name: str, fields: list[str], place: Position) -> None:
        low, high = _numbers(name, fields, place, "name min max", 2)
        if low > high:
            raise _error(f"'{name}': min {low:g} is above max {high:g}", place)
        _enter(self.table.observed, name, (low, high), place)

    def _asym_op(self, name: str, fields: list[str], place: Position) -> None:
        _numbers(name, fields, place, "name", 0)
        self.table.asym_ops += (name,)

    def _int4_op(self, name: str, fields: list[str], place: Position) -> None:
        _numbers(name, fields, place, "name", 0)
        self.table.int4_ops += (name,)

    def _weight_scale(self, name: str, fields: list[str], place: Position) -> None:
        form = "name N scale ... [N zero_point ...]"
        scales, rest = _counted(name, fields, place, form)
        zero_points, rest = _counted(name, rest, place, form) if rest else ((), rest)
        if rest or (zero_points and len(zero_points) != len(scales)):
            raise _error(f"'{name}': a row is '{form}'", place)
        _enter(self.table.weight_scales, name, WeightScale(scales, zero_points), place)


def _split(line: str, place: Position) -> tuple[str, list[str]]:
    """The name and the other fields of a row. Raises QdqcError."""
    if not line.startswith('"'):
        name, *fields = line.split()
        return name, fields
    try:
        name, end = json.JSONDecoder().raw_decode(line)
    except ValueError as err:
        raise _error("the quoted name is not a JSON string", place) from err
    return name, line[end:].split()


def _numbers(
    name: str, fields: list[str], place: Position, form: str, count: int
) -> tuple[float, ...]:
    if len(fields) != count:
        raise _error(
            f"a row is '{form}', but this one has {len(fields) + 1} fields",
            place,
            "a name with blanks is written in double quotes",
        )
    return tuple(_number(name, text, place) for text in fields)


def _number(name: str, text: str, place: Position) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _error(
            f"'{name}': '{text}' is not a number", place, "a row is: name threshold min max"
        ) from None
    if not math.isfinite(value):
        raise _error(
            f"'{name}': {text} is not a range to quantize with",
            place,
            "the data or the model gave NaN or infinite numbers: calibrate again",
        )
    return value


def _counted(
    name: str, fields: list[str], place: Position, form: str
) -> tuple[tuple[float, ...], list[str]]:
    """The numbers of a list with its length in front, and what follows it."""
    if not fields or not fields[0].isdigit() or int(fields[0]) > len(fields) - 1:
        raise _error(f"'{name}': a row is '{form}'", place)
    end = int(fields[0]) + 1
    return tuple(_number(name, text, place) for text in fields[1:end]), fields[end:]


def _range(name: str, fields: list[str], place: Position) -> Range:
    threshold, low, high = _numbers(name, fields, place, "name threshold min max", 3)
    if low > high:
        raise _error(
            f"'{name}': the range is inverted, min {low:g} is above max {high:g}",
            place,
            "the columns are threshold, min, max",
        )
    if threshold < 0:
        raise _error(f"'{name}': the threshold {threshold:g} is negative", place)
    return Range(low, high, threshold)


def _enter(rows: dict[str, RowT], name: str, row: RowT, place: Position) -> None:
    if name in rows and rows[name] != row:
        raise _error(f"'{name}' has two rows with different numbers", place, "delete one of them")
    rows[name] = row


def _error(message: str, place: Position, *notes: str) -> QdqcError:
    return QdqcError(message, loc=Loc(position=place), notes=notes)


def _print_name(name: str) -> str:
    plain = name and name[0] not in '#"' and name.isprintable()
    if plain and not any(c.isspace() for c in name):
        return name
    return json.dumps(name)


def _print_range(name: str, row: Range) -> str:
    numbers = (row.threshold, row.min, row.max)
    return " ".join((_print_name(name), *map(_print, numbers)))


def _print_scales(name: str, row: WeightScale) -> str:
    parts = [_print_name(name)]
    for numbers in (row.scales, row.zero_points):
        if numbers:
            parts += [str(len(numbers)), *map(_print, numbers)]
    return " ".join(parts)


def _print_means(name: str, means: tuple[float, ...]) -> str:
    numbers = " ".join(f"{m:.7g}" for m in means)
    return f"{_CHANNEL_MEAN} {_print_name(name)} {len(means)} {numbers}"


def _print(value: float) -> str:
    """``%.7f``, or ``%.8e`` where that would lose more than 1e-6 of the value."""
    text = f"{value:.7f}"
    return text if abs(float(text) - value) <= 1e-6 * abs(value) else f"{value:.8e}"


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))
