"""The launchers from Python: the arguments are those of the C interface, and a launch that fails is a sentence."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dovit import plugins
from dovit.plugins import structs as module
from dovit.plugins.launch import Kernels
from dovit.plugins.structs import HEADER, structs
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import find_gpu

needs_library = pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")


def test_structs_are_those_of_the_compiler(tmp_path: Path) -> None:
    """Sizes and offsets that ctypes works out from the header, against a C compiler's."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    prints = "".join(
        f'printf("%zu", sizeof(dovit_{name}_args));'
        + "".join(f'printf(" %zu", offsetof(dovit_{name}_args, {field}));' for field, _ in struct._fields_)
        + 'puts("");'
        for name, struct in structs().items()
    )
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {prints} return 0; }}\n')
    subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", source, "-o", tmp_path / "sizes"], check=True
    )
    told = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout.splitlines()
    for line, (name, struct) in zip(told, structs().items(), strict=True):
        offsets = [getattr(struct, field).offset for field, _ in struct._fields_]
        assert [*map(int, line.split())] == [ctypes.sizeof(struct), *offsets], name


@needs_library
def test_every_kernel_of_the_header_is_there() -> None:
    """And only those: functions of the header are the library's, and struct and function go together."""
    declared = set(
        re.findall(r"^int dovit_(\w+)\(const dovit_(\w+)_args\* args, void\* stream\);", HEADER.read_text(), re.M)
    )
    assert declared == {(name, name) for name in structs()} and len(declared) == 9
    assert all(hasattr(plugins.load(), f"dovit_{name}") for name in structs())


@needs_library
def test_a_struct_of_another_version_is_refused() -> None:
    kernels = plugins.load()
    args = structs()["labels"](1)
    assert kernels.dovit_labels(ctypes.byref(args), None) == 1  # cudaErrorInvalidValue


@needs_library
def test_wrong_arguments_are_no_launch() -> None:
    with pytest.raises(TypeError, match="slots takes keep, batch, count, capacity, slots, stream"):
        Kernels().slots(0, 1, 3, 2, 0)
    with pytest.raises(TypeError, match="slots takes"):
        Kernels().slots(0, 1, 3, 2, 0, 0, stream=0)
    with pytest.raises(AttributeError, match="has no kernel 'sort'"):
        Kernels().sort(0)


def test_a_field_that_is_not_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tmp_path / "dovit_kernels.h"
    header.write_text("typedef struct dovit_a_args {\n  size_t size;\n  int32_t both, of;\n} dovit_a_args;\n")
    monkeypatch.setattr(module, "HEADER", header)
    with pytest.raises(ValueError, match=r"'int32_t both, of;' in dovit_a_args is no `type name;`"):
        module.structs.__wrapped__()


@needs_library
def test_a_failed_launch_is_a_sentence() -> None:
    if not isinstance(find_gpu(), str):
        pytest.skip("there is a GPU, on which this would write to address 0")
    kernels = Kernels()
    some = np.ones(3, np.float32)
    for launch in (
        lambda: kernels.confidence("float16", 0, 0, 1, 2, 3, 0),
        lambda: kernels.decide(0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0),
        lambda: kernels.slots(0, 1, 3, 2, 0, 0),
        lambda: kernels.gather("float32", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 2, 1, 3, 8, 0, 0, 0, 0),
        lambda: kernels.reconstruct("bfloat16", 0, 0, 0, 1, 3, 1, 3, 8, 0),
        lambda: kernels.labels("float32", 0, 0, 1, 2, 3, 4, 5, 0),
        lambda: kernels.resized_labels("float32", 0, 0, 1, 2, 3, 4, 5, 6, 0),
        lambda: kernels.normalise("float16", 0, 0, 1, 2, 3, some, some, 0),
        lambda: kernels.resize(0, 2, 3, 0, 4, 5, 0, 3, 0, 3, 0, 0),
    ):
        with pytest.raises(DovitError, match=r"^the kernel \w+ could not be launched: \w.*driver"):
            launch()


@needs_library
def test_resize_taps_are_a_table_of_first_count_and_weights() -> None:
    table, width = Kernels().resize_taps(8, 4)
    assert len(table) == 4 * (2 + width)
    first, count, weights = table[:4], table[4:8], table[8:].reshape(4, width)
    assert (first >= 0).all() and (first + count <= 8).all() and (count <= width).all()
    assert np.allclose(weights.sum(axis=1), 1 << 22, atol=4)
