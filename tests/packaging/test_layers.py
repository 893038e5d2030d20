"""Packages import downwards only; imports inside functions count as well."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# packages that each may import besides itself and dovit.runtime.errors, which all may
BELOW = {
    "scenes": set(),
    "plugins": set(),
    "runtime": {"plugins", "scenes"},
    "serving": {"runtime"},
    "batch": {"runtime"},
    "evaluation": {"runtime", "scenes"},
    "demo": {"runtime", "scenes", "evaluation"},
    "engines": {"plugins", "runtime", "evaluation", "scenes"},
    "export": {"runtime", "evaluation", "engines"},
    "training": {"runtime", "evaluation", "export"},
    "benchmarks": {"runtime", "serving", "plugins", "scenes", "evaluation", "engines", "export", "training"},
}
ERRORS = "dovit.runtime.errors"


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name for name in names if name.startswith("dovit.")}


@pytest.mark.parametrize("package", BELOW)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    allowed = BELOW[package] | {package}
    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in imported(file)
        if name != ERRORS and name.split(".")[1] not in allowed
    }
    assert not wrong


def test_every_installed_package_has_a_layer() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]["packages"]
    assert {source for source in packages.values()} == set(BELOW)


def test_no_module_is_named_as_what_its_package_offers() -> None:
    """Importing `dovit.runtime.load`, were there such a module, would put it in the place of the function."""
    import dovit.runtime

    modules = {path.stem for folder in (ROOT, ROOT / "runtime") for path in folder.iterdir()}
    assert not modules & {*dovit.__all__, *dovit.runtime.__all__}
