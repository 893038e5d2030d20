"""What `pip install` installs, built from a copy of this checkout that also holds a bundle and results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from dovit import plugins

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PARTS: dict[str, str] = PROJECT["tool"]["scikit-build"]["wheel"]["packages"]  # "dovit/export" -> "export"
STRAY = [
    "engines/bundle.json",
    "engines/onnx/stem-0123abcd.onnx",
    "engines/onnx/stem-0123abcd.data",
    "engines/tensorrt/stem-0123abcd.plan",
    "engines/tensorrt-rtx/stem-0123abcd.plan",
    "benchmarks/results/2026-11-21.json",
    "plugins/gather.cu",
    "runtime/include/session.h",
]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as in a user's checkout, with files that were made by using it."""
    tree = tmp_path_factory.mktemp("source") / "dovit"
    tree.mkdir()
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    for source in (*PARTS.values(), "cmake"):
        shutil.copytree(ROOT / source, tree / source, ignore=shutil.ignore_patterns("__pycache__"))
    for name in STRAY:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"stray")
    return tree


def build_wheel(tree: Path, out: Path, **environment: str) -> Path:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, tree, **environment)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the plugin library for one architecture, where this machine has what builds it."""
    return build_wheel(tree, tmp_path_factory.mktemp("wheel"), CMAKE_ARGS="-DCMAKE_CUDA_ARCHITECTURES=80")


@pytest.fixture(scope="module")
def lacking_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("lacking"), TENSORRT_ROOT="/nowhere")


@pytest.fixture(scope="module")
def python_only_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("python-only"), DOVIT_PYTHON_ONLY="1", PATH="")


def unpacked(wheel: Path, folder: Path) -> Path:
    """A wheel of pure Python is installed by unpacking it; its own metadata is checked by name here."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(wheel, tmp_path_factory.mktemp("site"))


def python(site: Path, code: str) -> str:
    """Run `code` with the package in `site` and this environment's other packages, but not its editable dovit."""
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return run(sys.executable, "-S", "-P", "-c", code, PYTHONPATH=path).strip()  # -S: no .pth files, so no import hooks


def test_wheel_holds_every_module_and_nothing_that_use_left_behind(wheel: Path, tree: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    in_wheel = {name for name in names if name.startswith("dovit/")}
    expected = {f"{part}/{path}" for part, source in PARTS.items() for path in python_files(tree / source)}
    assert {name for name in in_wheel if name.endswith(".py")} == expected | {"dovit/__init__.py"}
    assert "dovit/py.typed" in in_wheel
    assert not {f"dovit/{name}" for name in STRAY} & in_wheel
    headers = {name for name in in_wheel if name.endswith((".h", ".cuh", ".cu", ".cpp"))}
    assert headers == {"dovit/plugins/kernels/dovit_kernels.h"}, "which launch.py reads"
    others = {name.split("/")[0] for name in names} - {"dovit"}
    assert others == {f"dovit-{PROJECT['project']['version']}.dist-info"}


def test_wheel_fits_every_python(wheel: Path, python_only_wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    assert python_only_wheel.name.endswith("-py3-none-any.whl")


def test_native_parts_are_all_that_an_install_can_go_without(
    wheel: Path, lacking_wheel: Path, python_only_wheel: Path
) -> None:
    """DOVIT_PYTHON_ONLY=1 was built with an empty PATH, so that neither CMake nor a compiler could be found."""

    def contents(path: Path) -> set[str]:
        return {name for name in zipfile.ZipFile(path).namelist() if name.startswith("dovit/")}

    native = "left_out.txt" if plugins.library() is None else "libdovit_plugins.so"
    assert contents(wheel) - contents(python_only_wheel) == {f"dovit/plugins/{native}"}
    assert contents(lacking_wheel) - contents(python_only_wheel) == {"dovit/plugins/left_out.txt"}
    assert contents(python_only_wheel) <= contents(wheel) & contents(lacking_wheel)


@pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")
def test_installed_library_loads(site: Path) -> None:
    printed = python(
        site,
        "from dovit import plugins\n"
        "print(plugins.library(), plugins.left_out(), plugins.load().dovit_gather_scratch_bytes(1, 65, 8))",
    )
    assert printed == f"{site}/dovit/plugins/libdovit_plugins.so None {2 * 8 * 4}"  # two tiles of 64 tokens


def test_import_needs_neither_torch_nor_onnx(site: Path) -> None:
    heavy = ("torch", "onnx", "onnxscript", "onnx_graphsurgeon")
    printed = python(
        site,
        "import sys, dovit; print(dovit.__version__); print(dovit.__file__)\n"
        "dovit.load, dovit.Session, dovit.Result, dovit.DovitError, dovit.UsageError\n"
        f"print(sorted(set({heavy}) & set(sys.modules)))",
    )
    version, file, loaded = printed.splitlines()
    assert version == PROJECT["project"]["version"]
    assert Path(file).is_relative_to(site)
    assert loaded == "[]"


@pytest.mark.parametrize("kind", ["lacking_wheel", "python_only_wheel"])
def test_plugins_say_what_is_left_out(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    site = unpacked(request.getfixturevalue(kind), tmp_path / "site")
    code = """if True:
        from dovit.plugins import library, load
        from dovit.runtime.errors import DovitError
        assert library() is None
        try:
            load()
        except DovitError as error:
            print(error)
    """
    said = python(site, code)
    assert said.startswith("this dovit has no plugin library; left out: CUDA plugins and kernels (")
    assert ("DOVIT_PYTHON_ONLY" in said) == (kind == "python_only_wheel")
    assert len(said.splitlines()) == 1
