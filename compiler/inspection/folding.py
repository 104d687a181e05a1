"""Groups of nodes by the path in their names, so that a large network can be shown folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Group", "folded"]

_LIMIT = 40
"""Members that a group has at most: more are put into groups of a row."""

_DEPTH = 24
"""Parts of a path that count; a hostile name may have thousands."""


@dataclass
class Group:
    """Nodes and groups in order; nodes are numbers."""

    label: str
    members: list[int | Group] = field(default_factory=list["int | Group"])


def folded(names: Sequence[str]) -> Group:
    """The tree of ``/layer1/0/Conv`` or ``layer1.0.conv``; a group of one member is that member.

    Nodes keep their order: a group stands where its first node does.
    """
    root = Group("")
    groups: dict[tuple[str, ...], Group] = {(): root}
    for place, name in enumerate(names):
        path: tuple[str, ...] = ()
        cut = "/" if "/" in name else "."
        for part in [p for p in name.split(cut)[:-1] if p][:_DEPTH]:
            inner = (*path, part)
            if inner not in groups:
                groups[inner] = Group(cut.join(inner))
                groups[path].members.append(groups[inner])
            path = inner
        groups[path].members.append(place)
    return _tidied(root)


def _tidied(group: Group) -> Group:
    members: list[int | Group] = []
    for member in group.members:
        tidy = _tidied(member) if isinstance(member, Group) else member
        alone = isinstance(tidy, Group) and len(tidy.members) == 1
        members.append(tidy.members[0] if isinstance(tidy, Group) and alone else tidy)
    while len(members) > _LIMIT:
        rows = [members[i : i + _LIMIT] for i in range(0, len(members), _LIMIT)]
        members = [Group(f"{_first(row[0])} to {_last(row[-1])}", row) for row in rows]
    return Group(group.label, members)


def _first(member: int | Group) -> int:
    return member if isinstance(member, int) else _first(member.members[0])


def _last(member: int | Group) -> int:
    return member if isinstance(member, int) else _last(member.members[-1])
