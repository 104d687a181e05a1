"""Commands as modules, and a key pressed while they are still being imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COMMANDS = sorted(p.stem for p in TOOLS.glob("*.py") if "\ndef main(" in p.read_text("utf-8"))

KEY = """
import sys

class Key:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Key())
sys.argv[0] = {word!r}
import qdqc.tools.model_deploy
"""


def test_there_are_ten_commands() -> None:
    assert len(COMMANDS) == 10


@pytest.mark.parametrize("command", COMMANDS)
def test_python_m(command: str) -> None:
    words = [sys.executable, "-m", f"qdqc.tools.{command}", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{command} ")


@pytest.mark.parametrize("word", ["/usr/bin/model_deploy", "-m"])
@pytest.mark.parametrize("name", ["argparse", "qdqc.tools.command", "qdqc.files"])
def test_a_key_while_a_command_is_imported(name: str, word: str) -> None:
    code = KEY.format(name=name, word=word)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_programs_that_use_the_commands_keep_their_tracebacks() -> None:
    code = KEY.format(name="qdqc.files", word="my_program.py")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Traceback" in done.stderr


def test_telemetry_is_off_unless_somebody_wants_it() -> None:
    code = "import os, qdqc; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, wanted in ((None, "1"), ("0", "0")):
        environment = {n: v for n, v in os.environ.items() if n != "ORT_DISABLE_TELEMETRY"}
        if given is not None:
            environment["ORT_DISABLE_TELEMETRY"] = given
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stdout.strip() == wanted
