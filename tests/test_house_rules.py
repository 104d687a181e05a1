"""The rules that keep the code readable, held by reading the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"compiler": "qdqc", "passes": "qdqc.passes", "tools": "qdqc.tools"}
"""Folders of the project, and what they are called as packages."""

FILE_LINES = 400
FUNCTION_LINES = 60
WIDTH = 100

HEAVY = ("onnx", "onnxruntime", "lark", "networkx", "PIL", "rich")
WALLED = ("onnx", "onnxruntime")
BEHIND_THE_WALL = ("compiler/onnx_io", "compiler/runtime")

ORDER = (
    ("diagnostics",),
    ("registry", "scratch", "user_files", "versions"),
    ("files", "memory"),
    ("kept_folder",),
    ("ir",),
    ("ops",),
    ("text",),
    ("pipeline",),
    ("rewrite",),
    ("data", "onnx_io", "quant"),
    ("calibration", "runtime"),
    ("inspection", "search"),
    ("tuning",),
    ("report",),
    ("flow",),
    ("__init__",),
)
"""Rooms and loose files of compiler/ from the ground up; each imports from lower floors only.

Rooms on one floor know nothing of each other.
"""
UPWARD = {
    ("qdqc.diagnostics", "qdqc.ir.loc"): "places are part of the IR; they import nothing",
    ("qdqc.ir.graph", "qdqc.ir.clone"): "a copy of a module is what clone makes",
    ("qdqc.ir.graph", "qdqc.text.printer"): "modules are equal when their texts are",
}
"""Imports that may run up or back, with the reason. They count in no circle."""

FILE_NAMES = re.compile(r"(^|_)(utils?|helpers?|misc|base|impl|manager|handlers?)(_|$)|^common$")
CLASS_NAMES = re.compile(r"(Base|Impl|Manager|Helper|Helpers|Utils?|Abstract\w*)$")
ALLOWED_FILES = {"compiler/pipeline/manager.py"}
ALLOWED_CLASSES = {"PassManager"}

SOURCES = sorted(p for folder in PACKAGES for p in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OTHERS = sorted(p for folder in ("benchmarks", "examples") for p in (ROOT / folder).rglob("*.py"))


def title(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield title(path), ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a file imports, wherever in the file, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            for given in node.args[:1]:
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    yield given.value, node.lineno


def module_name(file: str) -> str:
    folder, *inside = file.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join([PACKAGES[folder], *inside])


def folder_of(module: str) -> str:
    """The folder of the project that a module lies in; empty for a foreign one."""
    for folder in ("tools", "passes", "compiler"):
        if f"{module}.".startswith(f"{PACKAGES[folder]}."):
            return folder
    return "tests" if top(module) == "tests" else ""


def inner_imports() -> Iterator[tuple[str, str, int]]:
    """Imports between our own modules, in functions too: who, whom, and the line.

    Those for annotations alone are left out of it: they never happen.
    """
    ours = {module_name(name) for name, _ in trees()}
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                node.body = [ast.Pass()]
        for found, line in imports(tree):
            if found in ours:
                yield module_name(name), found, line


def is_room(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.py"))


def floor_of(module: str) -> int:
    room = [*module.split("."), "__init__"][1]
    return next(i for i, rooms in enumerate(ORDER) if room in rooms)


def top(name: str) -> str:
    return name.partition(".")[0]


def test_files_are_short() -> None:
    long = {title(p): len(lines(p)) for p in [*SOURCES, *OTHERS] if len(lines(p)) > FILE_LINES}
    assert not long


def test_functions_are_short() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long


def test_lines_are_narrow() -> None:
    wide = [
        f"{title(path)}:{number}"
        for path in [*SOURCES, *TESTS, *OTHERS]
        for number, line in enumerate(lines(path), 1)
        if len(line) > WIDTH
    ]
    assert not wide


def test_imports_run_one_way() -> None:
    """tools -> passes -> compiler; nothing imports tests."""
    forbidden = {"compiler": {"passes", "tools", "tests"}, "passes": {"tools", "tests"}}
    forbidden["tools"] = {"tests"}
    wrong = [
        f"{name}:{line} imports {found}"
        for name, tree in trees()
        for found, line in imports(tree)
        if folder_of(found) in forbidden[name.partition("/")[0]]
    ]
    assert not wrong


def test_rooms_of_the_compiler_stand_in_order() -> None:
    """What functions import counts too."""
    rooms = {p.stem for p in (ROOT / "compiler").iterdir() if p.suffix == ".py" or is_room(p)}
    assert rooms <= {room for floor in ORDER for room in floor}
    wrong: list[str] = []
    used: set[tuple[str, str]] = set()
    for who, whom, line in inner_imports():
        if {folder_of(who), folder_of(whom)} != {"compiler"}:
            continue
        same_room = who.split(".")[1:2] == whom.split(".")[1:2]
        if (who, whom) in UPWARD:
            used.add((who, whom))
        elif not same_room and floor_of(who) <= floor_of(whom):
            wrong.append(f"{who}:{line} imports {whom}")
    assert not wrong
    assert used == set(UPWARD), "an exception that nobody needs"


def test_no_imports_run_in_a_circle() -> None:
    edges = [(a, b) for a, b, _ in inner_imports() if (a, b) not in UPWARD and a != b]
    circles = networkx.strongly_connected_components(networkx.DiGraph(edges))
    assert not [sorted(c) for c in circles if len(c) > 1]


def test_onnx_and_onnxruntime_stay_behind_their_walls() -> None:
    wrong = [
        f"{name}:{line} imports {found}"
        for name, tree in trees()
        if not name.startswith(BEHIND_THE_WALL)
        for found, line in imports(tree)
        if top(found) in WALLED
    ]
    assert not wrong


def test_nothing_is_pickled() -> None:
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = [
        f"{name}:{line}" for name, tree in trees() for m, line in imports(tree) if top(m) in pickles
    ]
    wrong += [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert not wrong


def test_names_say_what_things_are() -> None:
    files = [title(p) for p in SOURCES if FILE_NAMES.search(p.stem)]
    assert set(files) <= ALLOWED_FILES
    classes = {
        node.name: name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and CLASS_NAMES.search(node.name)
    }
    assert set(classes) <= ALLOWED_CLASSES, classes


def test_no_two_files_share_a_name() -> None:
    """One word more tells files of different rooms apart; rooms of tests mirror them."""
    by_name: dict[str, list[str]] = {}
    for path in SOURCES:
        if path.stem != "__init__":
            by_name.setdefault(path.name, []).append(title(path))
    assert not {name: files for name, files in by_name.items() if len(files) > 1}


def test_package_files_are_empty_unless_they_gather() -> None:
    """A room's ``__init__`` holds no functions or classes, save the package's own front."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        if name.endswith("__init__.py") and name != "compiler/__init__.py"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert not wrong


def test_annotations_are_strings_everywhere() -> None:
    missing = [
        title(path)
        for path in [*SOURCES, *TESTS]
        if path.read_text("utf-8").strip()
        and "from __future__ import annotations" not in path.read_text("utf-8")
    ]
    assert not missing


def test_public_things_have_docstrings() -> None:
    """Modules, public classes and public functions at the top of a module."""
    bare: list[str] = []
    for name, tree in trees():
        if tree.body and ast.get_docstring(tree) is None:
            bare.append(name)
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and ast.get_docstring(node) is None:
                bare.append(f"{name}:{node.lineno} {node.name}")
    assert not bare


def test_suppressions_give_their_rule_and_reason() -> None:
    """``# noqa: X - why``, ``# pyright: ignore[rule] - why``, ``# type: ignore[code]``."""
    wrong: list[str] = []
    for path in SOURCES:
        for number, line in enumerate(lines(path), 1):
            bare = re.search(
                r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)|#\s*pyright:\s*ignore(?!\[)", line
            )
            unexplained = re.search(r"#\s*(noqa:|pyright:\s*ignore\[)(?!.*- \w)", line)
            if bare or unexplained:
                wrong.append(f"{title(path)}:{number}")
    assert not wrong


def test_a_pass_stands_in_the_file_of_its_name() -> None:
    wrong: list[str] = []
    for path in sorted((ROOT / "passes").glob("[!_]*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        names = [
            statement.value.value
            for node in tree.body
            if isinstance(node, ast.ClassDef)
            for statement in node.body
            if isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Constant)
            and any(isinstance(t, ast.Name) and t.id == "name" for t in statement.targets)
        ]
        if names != [path.stem.replace("_", "-")]:
            wrong.append(f"{title(path)}: {names}")
    assert not wrong


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import qdqc",
        "import qdqc.tools.qir_opt",
        "from qdqc.pipeline.discovery import load_passes; load_passes()",
    ],
)
def test_nothing_heavy_loads_before_it_is_needed(code: str) -> None:
    shown = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(shown) == "[]"


VAGUE = {"found", "held", "told"}
"""Names that say only that something was found, never what it is."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file binds (variable, parameter or attribute), with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr.lstrip("_"), node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def test_names_say_what_a_thing_is() -> None:
    vague = [
        f"{name}:{line}: {bound}"
        for name, tree in trees()
        for bound, line in bound_names(tree)
        if bound in VAGUE
    ]
    assert not vague
