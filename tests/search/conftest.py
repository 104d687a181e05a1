"""The tests of the search share small networks, which lie beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from search_nets import NETS

from qdqc.ir.graph import Module


@pytest.fixture(params=list(NETS))
def net(request: pytest.FixtureRequest) -> Module:
    """Each of the small networks."""
    return NETS[request.param]()
