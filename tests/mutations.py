"""`make mutations`: mutation testing of the chain on a GPU: each fault must make a test fail. pytest does not collect it.

Each fault is put into a copy of the package, on which the test named with it runs. Exit status 1 where a test still passes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import dovit

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "engines", "evaluation", "export", "plugins", "runtime", "scenes", "training")
MODES, CHAIN, RESIZING = (f"tests/runtime/gpu/test_{name}.py::test_" for name in ("modes", "chain", "resizing"))
GRAPH, SEGMENTED, EXACT = (
    f"{MODES}identical_to_the_cpu[1-setr-mla-fcn-2-{m}Mode]" for m in ("Graph", "Segmented", "Exact")
)
COUNTS, CELLS, REFUSED = (
    f"{CHAIN}schedules_and_counts[setr-naive-conv-1]",
    f"{CHAIN}schedules_and_counts[setr-mla-fcn-cells-2]",
    f"{MODES}a_plan_that_fails_ends_the_capture[stem-GraphMode]",
)
READ, APART = (
    f"tests/engines/test_planning.py::test_{name}"
    for name in ("every_value_is_there_when_it_is_read", "lifetimes_that_overlap_share_no_memory")
)
BODIES, WARM, OBSTACLE = (
    f"{MODES}{name}"
    for name in (
        "a_conditional_body_for_each_capacity",
        "every_kernel_runs_before_the_first_capture",
        "a_plan_that_cannot_be_captured[invalidates-block2]",
    )
)
UNSUPPORTED, RESIZED = f"{MODES}unsupported_nodes_are_refused", f"{RESIZING}resizing_on_the_gpu_equals_pillow"
PLANNING, GPU = "engines/planning", "runtime/gpu"

FAULTS = [  # folder, file, text, its replacement, the test that must fail
    (PLANNING, "operations.py", '0 if number == 1 else Address(tensor=f"capacity{number - 1}")', "0", READ),
    (PLANNING, "operations.py", "offset=4 * (chosen - 1)", "offset=0", READ),
    (PLANNING, "operations.py", "if made != self._named(full.name):", "if False:", READ),
    (PLANNING, "operations.py", "*(copy for later in copies[number:] for copy in later)", "", READ),
    (PLANNING, "operations.py", " and spec.name not in self._manifest.taps", "", READ),
    (
        PLANNING,
        "operations.py",
        'self._at(rest[1]) if rest else Address(tensor="unused_count")',
        "self._at(count)",
        READ,
    ),
    (PLANNING, "operations.py", 'Address(tensor=f"slots{self._number[keep.name]}")', "self._at(keep)", READ),
    (PLANNING, "operations.py", "self._place[spec.name] = self._named(place)", "self._place[spec.name] = place", READ),
    (PLANNING, "operations.py", '"cell_side": manifest.merge_cells', '"cell_side": 0', CELLS),
    (PLANNING, "operations.py", '"prefix": self._prefix(tokens)', '"prefix": manifest.prefix', CELLS),
    (PLANNING, "memory.py", "if until < first", "if until <= first", APART),
    (PLANNING, "memory.py", "max(last, number)", "last", APART),
    (PLANNING, "memory.py", "end = aligned(end + size)", "end = end + size", APART),
    ("runtime/bundle", "program.py", "kept + size.kept_plus", "kept", GRAPH),
    (GPU, "program.py", "argument.tensor, argument.offset", "argument.tensor", GRAPH),
    (GPU, "program.py", "if kept else planned.if_none_kept", "if kept else ()", GRAPH),
    (GPU, "program.py", "        self._write_constants()\n        self._warm", "        self._warm", COUNTS),
    (GPU, "program.py", "        self._warm_up_kernels(stream)\n", "", WARM),
    (GPU, "program.py", '"exact": 0, "fixed": 1', '"exact": 1, "fixed": 1', COUNTS),
    (GPU, "chain.py", "        obstacles = find_obstacles(program)\n", "        obstacles = []\n", OBSTACLE),
    (GPU, "graph_mode.py", "default_value=len(capacities)", "default_value=0", BODIES),
    (GPU, "graph_mode.py", "kept, handles[number])", "kept, 0)", GRAPH),
    (GPU, "graph_mode.py", "        check_nodes(", "        str(", UNSUPPORTED),
    (GPU, "graph_mode.py", "if copies:", "if True:", RESIZED),
    (GPU, "capture.py", "        _abandon(builder.end_building)\n", "", REFUSED),
    (
        GPU,
        "graph_mode.py",
        "        self._transfers.enqueue_resized_labels(stream_address(self._stream))\n",
        "",
        RESIZED,
    ),
    (GPU, "transfers.py", "self._program.resized_labels.read() if self.resizes else ", "", RESIZED),
    (GPU, "mode.py", "graph = self._without_copies", "pass", RESIZED),
    (GPU, "stepped_modes.py", "            self._stream.sync()\n            kept", "            kept", SEGMENTED),
    (GPU, "stepped_modes.py", "elif number < len(program.program.decisions) and kept:", "elif False:", SEGMENTED),
    (GPU, "stepped_modes.py", "self._kept.enqueue(number - 1, stream)", "self._kept.enqueue(0, stream)", EXACT),
    (GPU, "resizing.py", "uploaded + source.scratch", "uploaded + source.pixels", RESIZED),
    (
        GPU,
        "chain.py",
        "while waiting and self._failure is None:",
        "while False:",
        f"{RESIZING}a_stream_that_nobody_ends",
    ),
]


def main() -> int:
    with TemporaryDirectory() as folder:
        package = Path(folder) / "dovit"
        for name in PACKAGES:
            shutil.copytree(
                ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__", "cpp", "*.plan", "*.weights")
            )
        shutil.copy(str(dovit.__file__), package)
        if run(Path(folder), sorted({test for *_, test in FAULTS})):
            print("a test fails without any fault")
            return 1
        survived = 0
        for part, name, old, new, test in FAULTS:
            file = package / part / name
            text = file.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times"
            file.write_text(text.replace(old, new), encoding="utf-8")
            noticed = run(Path(folder), [test]) == 1
            file.write_text(text, encoding="utf-8")
            survived += not noticed
            print(f"{'noticed ' if noticed else 'SURVIVED'}  {name}: {old.strip()!r} → {new.strip()!r}", flush=True)
    return 1 if survived else 0


def run(folder: Path, tests: list[str]) -> int:
    """pytest's exit status on the package in `folder`: 0 where all pass, 1 where one fails."""
    # without site, whose hook for the editable install would come first; without cached bytecode, which compares whole seconds
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    path = os.pathsep.join([str(folder), *packages])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
