"""The house rules: packages import one way only, modules stay short, and everything public says what it is for."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("einsum",),
    ("architectures", "workloads"),
    ("mappings",),
    ("bounds", "simulator"),
    ("explorer", "kernels"),
    ("einsight",),
)
"""The packages from the ground up: each may import from the floors below its own, and nothing else of the house."""
PACKAGES = tuple(package for floor in FLOORS for package in floor)
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {"distributed", "matplotlib", "networkx", "numba", "scipy", "torch", "triton"}
"""Packages so slow to import that they wait until a function needs them."""

LONGEST_MODULE = 400
LONGEST_FUNCTION = 70
SHORT_METHOD = 6


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The top-level package of each absolute import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def public(tree: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Public classes and functions, and those public methods that are more than a line or two."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            if isinstance(tree, ast.Module) or len(ast.unparse(node).splitlines()) > SHORT_METHOD:
                yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def documented_by_a_base(tree: ast.Module) -> set[str]:
    """Abstract methods with a docstring: what overrides them says the same."""
    return {
        method.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
        if any(isinstance(mark, ast.Name) and mark.id == "abstractmethod" for mark in method.decorator_list)
    }


def test_the_house_has_all_its_packages() -> None:
    assert {module.parts[0] for module in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_one_way(module: Path) -> None:
    floor = next(level for level, packages in enumerate(FLOORS) if module.parts[0] in packages)
    allowed = {package for packages in FLOORS[:floor] for package in packages} | {module.parts[0]}
    assert set(imported(ast.walk(parsed(module)))) & set(PACKAGES) <= allowed


def test_heavy_packages_wait_until_a_function_needs_them() -> None:
    entrances = [*PACKAGES, "einsight.command", "explorer.experiment", "simulator.simulate"]
    program = f"import sys, {', '.join(entrances)}; print(*({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_modules_and_functions_are_short(module: Path) -> None:
    lines = len((ROOT / module).read_text(encoding="utf-8").splitlines())
    functions = (node for node in ast.walk(parsed(module)) if isinstance(node, ast.FunctionDef) and node.end_lineno)
    assert lines <= LONGEST_MODULE
    assert not [node.name for node in functions if node.end_lineno - node.lineno >= LONGEST_FUNCTION]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_everything_public_is_documented(module: Path) -> None:
    tree = parsed(module)
    assert ast.get_docstring(tree), "the module says nothing about itself"
    undocumented = [node.name for node in public(tree) if not ast.get_docstring(node)]
    assert not set(undocumented) - documented_by_a_base(tree)


@pytest.mark.parametrize("folder", ["tests", "docs"])
def test_what_is_no_package_says_what_it_is_for_too(folder: str) -> None:
    silent = [path for path in (ROOT / folder).rglob("*.py") if not ast.get_docstring(parsed(path.relative_to(ROOT)))]
    assert not silent


def test_every_description_says_what_it_is_and_where_it_comes_from() -> None:
    libraries = [path for package in PACKAGES for path in (ROOT / package).glob("**/library/*.yaml")]
    examples = list((ROOT / "docs/examples").glob("*.yaml"))
    assert len(libraries) > 50 and examples
    for path in (*libraries, *examples):
        text = path.read_text(encoding="utf-8")
        assert "\ndescription: " in text or text.startswith("# "), path
        assert "\nsource: " in text or path.parts[-3] == "kernels" or text.startswith("# "), path


def test_expressions_are_parsed_never_evaluated_by_python() -> None:
    calls = {
        (str(module), node.func.id)
        for module in MODULES
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not [call for call in calls if call[1] in {"eval", "exec", "__import__"}]


def test_the_wheel_holds_these_packages_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    assert {name for name in folders if any(fnmatch(name, pattern) for pattern in patterns)} == set(PACKAGES)
    assert set(project["tool"]["mypy"]["packages"]) == set(PACKAGES)
