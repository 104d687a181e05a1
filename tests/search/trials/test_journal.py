"""A journal gives back what it was given, whatever became of the process that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.search.trials.journal import Journal

ENTRIES = st.lists(
    st.tuples(
        st.one_of(st.text(), st.lists(st.one_of(st.text(), st.floats(allow_nan=False)))),
        st.lists(st.floats(allow_nan=False)),
    ),
    max_size=6,
)


@given(ENTRIES)
def test_numbers_come_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[object, list[float]]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    first = Journal(folder, "k")
    for entry, found in entries:
        first.put(entry, found)
    second = Journal(folder, "k")
    for entry, _ in entries:
        assert second.get(entry) == first.get(entry)
    assert second.taken_up == len({repr(e) for e, _ in entries})
    assert second.get("something else entirely") is None


def test_another_key_is_another_journal(tmp_path: Path) -> None:
    Journal(tmp_path, "a").put("x", 1.0)
    assert Journal(tmp_path, "b").get("x") is None
    assert Journal(tmp_path, "a").get("x") == 1.0


def test_a_line_that_was_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a")
    journal.put("x", [1.0])
    journal.put("y", [2.0])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        found = Journal(tmp_path, "a")
        assert found.get("x") in (None, [1.0])
        assert found.get("y") in (None, [2.0])
        found.put("z", 3.0)
        assert Journal(tmp_path, "a").get("z") == 3.0
    file.write_bytes(b"\xff\x00 no json\n[1]\n[[], 2]\n" + whole)
    assert Journal(tmp_path, "a").get("y") == [2.0]


def test_without_a_folder_it_lives_as_long_as_the_search(tmp_path: Path) -> None:
    journal = Journal(None, "a")
    journal.put("x", 1.0)
    assert journal.get("x") == 1.0
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    journal = Journal(in_the_way, "a")
    journal.put("x", 2.0)
    assert journal.get("x") == 2.0
