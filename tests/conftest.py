"""What all tests share."""

from __future__ import annotations

# Ops enter the registry when they are first imported: not within some test's scratch registry.
import compiler.ops  # noqa: F401
