"""
The examples of the pages below are run, and their output is what the pages show.

``python tests/test_shown_commands.py [PAGE]`` writes the output into the pages. A block that
names a file (```` ```python fuse_norm.py ````) is that file for the commands that follow. Blocks
``console`` show exactly what comes; in blocks ``session`` numbers were measured, and may differ
between processors. The project's examples lie in ``examples``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = DOCS.parent / "examples"
PAGES = ("debugging.md", "deployment.md", "search.md", "tutorial.md", "writing-a-pass.md")

_BLOCK = re.compile(r"```(\w+)(?: (\S+))?\n(.*?)```\n", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d.,e+-]*%?")
_SECONDS = re.compile(r"^ *\d+\.\d{4} +\d+\.\d%", re.MULTILINE)


def shell(command: str, folder: Path) -> str:
    """Stderr and stdout of a command as a reader sees them."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "LC_ALL": "C", "XDG_CACHE_HOME": str(folder / ".cache")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout


def rendered(text: str, folder: Path) -> str:
    """The page with the output of its commands as they give it now."""
    (folder / "examples").symlink_to(EXAMPLES)

    def block(match: re.Match[str]) -> str:
        kind, file, body = match[1], match[2], match[3]
        if file is not None:
            (folder / file).write_text(body)
        if kind in ("console", "session"):
            commands = [line[2:] for line in body.split("\n") if line.startswith("$ ")]
            body = "".join(f"$ {command}\n{shell(command, folder)}" for command in commands)
        head = kind if file is None else f"{kind} {file}"
        return f"```{head}\n{body}```\n"

    return _BLOCK.sub(block, text)


def masked(text: str) -> str:
    """Without what differs from run to run: seconds, and the order that they give; measured
    numbers, and the spaces that line them up.
    """
    text = _BLOCK.sub(lambda b: _unmeasured(b[0]) if b[1] == "session" else b[0], text)
    lines = text.split("\n")
    kept = [line for line in lines if not _SECONDS.match(line)]
    timed = [_SECONDS.sub("seconds", line) for line in lines if _SECONDS.match(line)]
    return "\n".join([*kept, *sorted(timed)])


def _unmeasured(block: str) -> str:
    return re.sub(r" +", " ", _NUMBER.sub("#", block))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_what_the_commands_print(page: str, tmp_path: Path) -> None:
    text = (DOCS / page).read_text("utf-8")
    assert "```console\n$ " in text
    assert masked(rendered(text, tmp_path)) == masked(text)


if __name__ == "__main__":
    for page in sys.argv[1:] or PAGES:
        with tempfile.TemporaryDirectory() as name:
            shown = rendered((DOCS / page).read_text("utf-8"), Path(name))
            (DOCS / page).write_text(shown, "utf-8")
