"""What is read of a CPU's instructions in /proc/cpuinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from dovit.runtime.machine import cpu_multiplies_in_bf16, int8_sums_saturate


@pytest.mark.parametrize(
    ("text", "bf16", "saturate"),
    [
        ("flags\t\t: fpu avx2\n", False, True),
        ("flags\t\t: fpu avx2 avx_vnni\n", False, False),
        ("flags\t\t: fpu avx512f amx_tile\n", False, True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False, False),
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni avx512_bf16\n", True, False),
        ("flags\t\t: fpu avx512_vnni amx_bf16 amx_tile\nflags\t\t: fpu\n", True, False),
        ("Features\t: fp asimd\n", False, False),
        ("Features\t: fp asimd bf16\n", True, False),
        ("no flags", False, False),
        (None, False, False),
    ],
)
def test_instructions(text: str | None, bf16: bool, saturate: bool, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert (cpu_multiplies_in_bf16(file), int8_sums_saturate(file)) == (bf16, saturate)
