"""Groups by the paths in names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qdqc.inspection.folding import Group, folded


def shape(group: Group) -> list[object]:
    return [m if isinstance(m, int) else (m.label, shape(m)) for m in group.members]


def rows(group: Group) -> list[int]:
    return [r for m in group.members for r in ([m] if isinstance(m, int) else rows(m))]


def widest(group: Group) -> int:
    inner = [widest(m) for m in group.members if isinstance(m, Group)]
    return max([len(group.members), *inner])


def test_paths_make_groups_that_stand_where_their_first_node_does() -> None:
    names = ["x", "/l1/0/conv", "/l1/0/relu", "/l1/1/conv", "/l1/1/relu", "/head/fc", "/l1/2/c"]
    assert shape(folded(names)) == [
        0,
        ("l1", [("l1/0", [1, 2]), ("l1/1", [3, 4]), 6]),
        5,
    ]


def test_dots_are_paths_where_there_are_no_slashes() -> None:
    assert shape(folded(["a.b.c", "a.b.d", "y"])) == [("a.b", [0, 1]), 2]


def test_many_nodes_in_a_row_are_put_together() -> None:
    tree = folded([f"n{i}" for i in range(10_000)])
    assert rows(tree) == list(range(10_000))
    assert widest(tree) <= 40
    first = tree.members[0]
    assert isinstance(first, Group)
    assert first.label.startswith("0 to ")


def test_a_name_of_a_thousand_parts_is_no_deep_tree() -> None:
    tree = folded(["/".join(["a"] * 5000), "/".join(["a"] * 5000) + "b"])
    assert rows(tree) == [0, 1]


@given(st.lists(st.text("ab/.", max_size=8), max_size=120))
def test_every_node_stands_in_the_tree_once(names: list[str]) -> None:
    tree = folded(names)
    assert sorted(rows(tree)) == list(range(len(names)))
    assert widest(tree) <= 40
