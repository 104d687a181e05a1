from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from process_cost import ChildError, measure, private_bytes

MEGABYTE = 10**6
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_the_wall_time_is_that_of_the_whole_process() -> None:
    start = time.perf_counter()
    cost = measure(python("import time; time.sleep(0.3); print('done')"))
    assert cost.stdout == "done\n"
    assert 0.3 <= cost.seconds <= time.perf_counter() - start


@needs_proc
def test_the_peak_counts_what_was_freed_before_the_end() -> None:
    code = "import time; a = bytearray(b'x') * 80_000_000; time.sleep(.3); del a; time.sleep(.2)"
    assert 80 * MEGABYTE <= measure(python(code)).peak_bytes < 130 * MEGABYTE


@needs_proc
def test_children_of_the_child_count() -> None:
    inner = "import time; a = bytearray(b'x') * 60_000_000; time.sleep(.4)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {inner!r}])"
    assert measure(python(code)).peak_bytes >= 60 * MEGABYTE


@needs_proc
def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 80_000_000)
    code = (
        f"import mmap, time; f = open({str(file)!r}, 'rb');"
        "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ);"
        "n = sum(m[i] for i in range(0, len(m), 4096)); time.sleep(.3)"
    )
    assert measure(python(code)).peak_bytes < 60 * MEGABYTE


@needs_proc
def test_a_process_that_has_ended_has_no_memory() -> None:
    assert private_bytes(os.getpid()) > MEGABYTE
    assert private_bytes(2**22 + 1) == 0


def test_a_failure_shows_the_end_of_stderr() -> None:
    with pytest.raises(ChildError, match=r"exit code 3\n(.|\n)*went wrong"):
        measure(python("import sys; sys.stderr.write('went wrong'); sys.exit(3)"))
