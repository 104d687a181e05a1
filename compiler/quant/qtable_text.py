"""Writing qtables: ``name mode`` a line, as ``qdqc.quant.qtable`` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["print_qtable"]


def print_qtable(modes: Mapping[str, str], header: Mapping[str, object] = {}) -> str:
    """The text of a qtable, names in the order given; ``header`` goes into comments."""
    out = [f"# {key}: {' '.join(str(value).split())}" for key, value in header.items()]
    out += ["###", "# op_name   quantize_mode"]
    out += [f"{_print_name(name)} {mode}" for name, mode in modes.items()]
    return "\n".join(out) + "\n"


def _print_name(name: str) -> str:
    """A name that is one plain word as it is, any other one as a JSON string."""
    plain = name.isprintable() and not any(c.isspace() for c in name)
    return name if plain and name[:1] not in ("#", '"', "") else json.dumps(name)
