"""The commands, one a file. A key that stops one while it is loaded leaves no traceback."""

from __future__ import annotations

from qdqc.tools.starting import stop_quietly

stop_quietly()
