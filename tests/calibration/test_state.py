"""Statistics as bytes: what is read back is what was written, and nothing else is believed."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdqc.calibration.state import DamagedError, from_bytes, to_bytes
from qdqc.calibration.statistics import Collector, Detail

FLOATS = st.floats(width=32)
SHAPES = st.tuples(st.integers(0, 3), st.just(3), st.integers(1, 4))
ARRAYS = hnp.arrays(np.float32, SHAPES, elements=FLOATS)
NOTES = {"key": "a key\nof lines", "ü": ""}


def collected(samples: list[np.ndarray], detail: Detail = Detail.HISTOGRAM) -> Collector:
    out = Collector(["x"], detail)
    for array in samples:
        out.update("x", array)
        out.update("a name", np.maximum(array, 0))
        out.update_extremes("ids", np.arange(array.size))
        out.end_sample()
    return out


@pytest.mark.parametrize("detail", list(Detail))
@given(st.lists(ARRAYS, max_size=3))
@example([np.full((2, 3), np.nan, np.float32)])
@example([np.zeros((3, 3), np.float32)])
@example([np.array([[3e38, -1e-45, 1]], np.float32)])
def test_what_is_read_back_is_the_same_and_goes_on_the_same(
    detail: Detail, samples: list[np.ndarray]
) -> None:
    held = collected(samples, detail)
    found, notes = from_bytes(to_bytes(held, NOTES))
    assert notes == NOTES
    assert (found.detail, found.samples) == (detail, held.samples)
    assert found.nonfinite == held.nonfinite
    assert found.extremes == held.extremes
    assert list(found.statistics) == list(held.statistics)
    for name, stats in held.statistics.items():
        other = found.statistics[name]
        for field in ("count", "zeros", "nans", "infs", "min", "max", "exponent"):
            assert getattr(other, field) == getattr(stats, field)
        np.testing.assert_array_equal(other.counts, stats.counts if stats.counts.any() else [])
        np.testing.assert_array_equal(other.extremes.sums, stats.extremes.sums)
        np.testing.assert_array_equal(other.clips.sums, stats.clips.sums)
        assert other.clips.count == stats.clips.count
    assert {n: m.mean for n, m in found.channels.items()} == {
        n: m.mean for n, m in held.channels.items()
    }
    more = collected([np.ones((2, 3), np.float32)], detail)
    for side in (found, held):
        side.absorb(more)
    assert to_bytes(found, {}) == to_bytes(held, {})


@given(st.integers(0, 5000), st.integers(0, 255))
def test_no_changed_byte_is_believed(place: int, value: int) -> None:
    whole = to_bytes(collected([np.ones((2, 3), np.float32)]), NOTES)
    place %= len(whole)
    changed = whole[:place] + bytes([value]) + whole[place + 1 :]
    if changed != whole:
        with pytest.raises(DamagedError):
            from_bytes(changed)
    with pytest.raises(DamagedError):
        from_bytes(whole[:place])
    with pytest.raises(DamagedError):
        from_bytes(whole + b"\0")


def signed(payload: bytes) -> bytes:
    """Bytes with a right checksum."""
    digest = hashlib.sha256(payload).hexdigest().encode()
    return b"qdqc statistics 1 " + digest + b"\n" + payload


def test_another_form_under_a_right_checksum_is_refused() -> None:
    whole = to_bytes(collected([np.ones((2, 3), np.float32)]), {})
    payload = whole[whole.index(b"\n") + 1 :]
    assert signed(payload) == whole
    size = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + size])
    state = header.pop("__metadata__")["state"]

    def changed(old: str, new: str) -> bytes:
        assert old in state
        held = {"__metadata__": {"state": state.replace(old, new)}, **header}
        text = json.dumps(held).encode()
        return signed(len(text).to_bytes(8, "little") + text + payload[8 + size :])

    from_bytes(changed("a name", "b name"))
    for old, new in (
        ('"a name"', '"a name", "b"'),
        ("HISTOGRAM", "ANAGRAM"),
        ('"samples": 1', '"samples": "x"'),
        ("statistics", "ecstatics"),
    ):
        with pytest.raises(DamagedError, match="another form"):
            from_bytes(changed(old, new))
    for other in (b"", b"PK\x03\x04", b"\xff" * 100, b"\0" * 8 + b"{}"):
        with pytest.raises(DamagedError):
            from_bytes(signed(other))
