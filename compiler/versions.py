"""Versions of this project and of what it stands on."""

from __future__ import annotations

import importlib.metadata

__all__ = ["own_version", "version_of"]


def own_version() -> str:
    """The version of the installed qdqc, which is ``qdqc.__version__``."""
    return version_of("qdqc")


def version_of(distribution: str) -> str:
    """The version of an installed distribution; ``(not installed)`` where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
