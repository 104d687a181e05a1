"""
The examples of the pages below are run, and their output is what the pages show.

``python tests/test_shown_commands.py [PAGE]`` writes the output into the pages. A block that
names a file (```` ```python fuse_norm.py ````) is that file for the commands that follow. Blocks
``console`` show exactly what comes; in blocks ``session`` numbers were measured, and may differ
between processors. The project's examples lie in ``examples``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import IO

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
COMMANDS = frozenset(PROJECT["scripts"])
EXAMPLES = DOCS.parent / "examples"
PAGES = ("debugging.md", "deployment.md", "search.md", "tutorial.md", "writing-a-pass.md")

_BLOCK = re.compile(r"```(\w+)(?: (\S+))?\n(.*?)```\n", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d.,e+-]*%?")
_SECONDS = re.compile(r"^ *\d+\.\d{4} +\d+\.\d%", re.MULTILINE)


def shell(command: str, folder: Path) -> str:
    """Stderr and stdout of a command as a reader sees them.

    A command of qdqc runs in this process, which spares the imports; one that loads a plugin, or
    does not stand alone before a pipe, does not.
    """
    words, piped, rest = command.partition(" | ")
    name, *arguments = shlex.split(words)
    with tempfile.TemporaryFile() as shown:
        if name not in COMMANDS or "--plugin" in arguments or set(";&|>") & set(words):
            _bash(command, folder, subprocess.DEVNULL, shown)
        elif piped:
            with tempfile.TemporaryFile() as pipe:
                _in_process(name, arguments, folder, pipe, shown)
                pipe.seek(0)
                _bash(rest, folder, pipe, shown)
        else:
            _in_process(name, arguments, folder, shown, shown)
        shown.seek(0)
        return shown.read().decode()


def _bash(command: str, folder: Path, given: IO[bytes] | int, shown: IO[bytes]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "LC_ALL": "C", "XDG_CACHE_HOME": str(folder / ".cache")},
        stdin=given,
        stdout=shown,
        stderr=subprocess.STDOUT,
        check=False,
    )


def _in_process(
    name: str, arguments: list[str], folder: Path, out: IO[bytes], err: IO[bytes]
) -> None:
    """Run a command's main in the folder, with stdout buffered and stderr not, as Python has them
    in a pipe; what libraries write to the descriptors comes too.
    """
    main = importlib.import_module(f"qdqc.tools.{name}").main
    with contextlib.ExitStack() as after, pytest.MonkeyPatch.context() as patch:
        for number, stream, file, buffering in ((1, "stdout", out, -1), (2, "stderr", err, 1)):
            descriptor = os.dup(number)
            after.callback(os.close, descriptor)
            after.callback(os.dup2, descriptor, number)
            os.dup2(file.fileno(), number)
            text = after.enter_context(open(number, "w", buffering, closefd=False))
            patch.setattr(sys, stream, text)
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        patch.setattr(sys, "argv", [name, *arguments])
        main(arguments)


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
