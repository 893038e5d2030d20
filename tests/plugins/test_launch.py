"""The launchers from Python: the arguments are those of the C interface, and a launch that fails is a sentence."""

import re
from pathlib import Path

import numpy as np
import pytest

from dovit import plugins
from dovit.plugins.launch import _LAUNCHERS, Kernels
from dovit.runtime.errors import DovitError
from dovit.runtime.machine import find_gpu

C_API = (Path(__file__).parents[2] / "plugins" / "kernels" / "c_api.cpp").read_text()

pytestmark = pytest.mark.skipif(plugins.library() is None, reason=f"left out: {plugins.left_out()}")


@pytest.mark.parametrize("name", sorted(_LAUNCHERS))
def test_arguments_are_those_of_the_c_interface(name: str) -> None:
    [arguments] = re.findall(rf"DOVIT_API int dovit_{name}\(([^)]*)\)", C_API)
    kinds = {"int": "i", "unsigned long long": "h"}
    found = ["a" if "*" in a else kinds[a.strip().rpartition(" ")[0]] for a in arguments.split(",")]
    assert "".join(found) == _LAUNCHERS[name]


def test_a_failed_launch_is_a_sentence() -> None:
    if not isinstance(find_gpu(), str):
        pytest.skip("there is a GPU, on which this would write to address 0")
    kernels = Kernels()
    some = np.ones(3, np.float32)
    for launch in (
        lambda: kernels.confidence("float16", 0, 0, 1, 2, 3, 0),
        lambda: kernels.decide(0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0),
        lambda: kernels.slots(0, 1, 3, 2, 0, 0),
        lambda: kernels.gather("float32", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 2, 1, 3, 8, 0, 0),
        lambda: kernels.reconstruct("bfloat16", 0, 0, 0, 1, 3, 1, 3, 8, 0),
        lambda: kernels.labels("float32", 0, 0, 1, 2, 3, 4, 5, 0),
        lambda: kernels.resized_labels("float32", 0, 0, 1, 2, 3, 4, 5, 6, 0),
        lambda: kernels.normalise("float16", 0, 0, 1, 2, 3, some, some, 0),
        lambda: kernels.resize(0, 2, 3, 0, 4, 5, 0, 3, 0, 3, 0, 0),
    ):
        with pytest.raises(DovitError, match=r"^the kernel \w+ could not be launched: \w.*driver"):
            launch()


def test_resize_taps_are_a_table_of_first_count_and_weights() -> None:
    table, width = Kernels().resize_taps(8, 4)
    assert len(table) == 4 * (2 + width)
    first, count, weights = table[:4], table[4:8], table[8:].reshape(4, width)
    assert (first >= 0).all() and (first + count <= 8).all() and (count <= width).all()
    assert np.allclose(weights.sum(axis=1), 1 << 22, atol=4)
