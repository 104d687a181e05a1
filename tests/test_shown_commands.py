"""
The examples of docs/debugging.md are run, and their output is what the page shows.

``python tests/test_debugging_doc.py`` writes the output into the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "debugging.md"

_BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.DOTALL)
_SECONDS = re.compile(r"^ *\d+\.\d{4} +\d+\.\d%", re.MULTILINE)


def shell(command: str, folder: Path) -> str:
    """Stderr and stdout of a command as a reader sees them."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "LC_ALL": "C"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout


def rendered(text: str, folder: Path) -> str:
    """The page with the output of its commands as they give it now."""

    def block(match: re.Match[str]) -> str:
        kind, body = match[1], match[2]
        if kind == "qir":
            (folder / "block.qir").write_text(body)
        elif kind == "python":
            (folder / "breaks.py").write_text(body)
        elif kind == "console":
            commands = [line[2:] for line in body.split("\n") if line.startswith("$ ")]
            body = "".join(f"$ {command}\n{shell(command, folder)}" for command in commands)
        return f"```{kind}\n{body}```\n"

    return _BLOCK.sub(block, text)


def masked(text: str) -> str:
    """Without what differs from run to run: seconds, and the order that they give."""
    lines = text.split("\n")
    kept = [line for line in lines if not _SECONDS.match(line)]
    timed = [_SECONDS.sub("seconds", line) for line in lines if _SECONDS.match(line)]
    return "\n".join([*kept, *sorted(timed)])


def test_the_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    assert masked(rendered(text, tmp_path)) == masked(text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        PAGE.write_text(rendered(PAGE.read_text("utf-8"), Path(name)), "utf-8")
