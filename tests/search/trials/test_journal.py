"""A journal gives back what it was given, whatever became of the process that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.kept_folder import KeptFolder
from qdqc.search.trials.journal import SUFFIX, Journal

ENTRIES = st.lists(
    st.tuples(
        st.one_of(st.text(), st.lists(st.one_of(st.text(), st.floats(allow_nan=False)))),
        st.lists(st.floats(allow_nan=False)),
    ),
    max_size=6,
)


def opened(base: Path, key: str) -> Journal:
    return Journal(KeptFolder(base, "search", SUFFIX), key)


def plain(finding: object) -> object:
    return finding


@given(ENTRIES)
def test_numbers_come_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[object, list[float]]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    first = opened(folder, "k")
    for entry, found in entries:
        first.put(entry, found)
    second = opened(folder, "k")
    for entry, _ in entries:
        assert second.get(entry, plain) == first.get(entry, plain)
    assert second.taken_up == len({repr(e) for e, _ in entries})
    assert second.get("something else entirely", plain) is None


def test_another_key_is_another_journal(tmp_path: Path) -> None:
    opened(tmp_path, "a").put("x", 1.0)
    assert opened(tmp_path, "b").get("x", plain) is None
    assert opened(tmp_path, "a").get("x", plain) == 1.0


def test_a_line_that_was_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path, "a")
    journal.put("x", [1.0])
    journal.put("y", [2.0])
    (file,) = tmp_path.rglob("*.journal")
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        found = opened(tmp_path, "a")
        assert found.get("x", plain) in (None, [1.0])
        assert found.get("y", plain) in (None, [2.0])
        found.put("z", 3.0)
        assert opened(tmp_path, "a").get("z", plain) == 3.0
    file.write_bytes(b"\xff\x00 no json\n[1]\n[[], 2]\n" + whole)
    assert opened(tmp_path, "a").get("y", plain) == [2.0]


def test_without_a_folder_it_lives_as_long_as_the_search(tmp_path: Path) -> None:
    journal = Journal(None, "a")
    journal.put("x", 1.0)
    assert journal.get("x", plain) == 1.0


def test_a_line_that_was_changed_or_is_of_another_search_counts_for_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path, "a")
    journal.put("x", [1.0])
    (file,) = tmp_path.rglob("*.journal")
    whole = file.read_bytes()
    for place in range(1, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert opened(tmp_path, "a").get("x", plain) is None
    other = KeptFolder(tmp_path, "search", SUFFIX).file("b")
    other.write_bytes(whole)
    assert opened(tmp_path, "b").taken_up == 0


def test_a_finding_of_another_form_counts_for_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path, "a")
    journal.put("x", ["no number"])
    assert opened(tmp_path, "a").get("x", float) is None
