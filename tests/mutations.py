"""`make mutations`: faults in the chain on a GPU, one at a time, each of which a test must notice. pytest does not collect it.

A fault is put into a copy of the package, on which the test named with it then runs. Exit status 1 where one survives.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import dovit

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "engines", "export", "plugins", "runtime", "training")
MODES, MEMORY, CHAIN, RESIZING = (
    f"tests/runtime/gpu/test_{name}.py::test_" for name in ("modes", "memory", "chain", "resizing")
)
GRAPH, SEGMENTED, EXACT = (
    f"{MODES}identical_to_the_cpu[1-setr-mla-fcn-2-{m}Mode]" for m in ("Graph", "Segmented", "Exact")
)
COUNTS, REFUSED = (
    f"{CHAIN}schedules_and_counts[setr-naive-conv-1]",
    f"{MODES}a_refused_plan_ends_the_capture[stem-GraphMode]",
)
APART, BODIES = f"{MEMORY}memory_is_shared_only_by_what_is_never_needed_at_once", f"{MODES}a_body_for_each_capacity"
WARM, OBSTACLE = (
    f"{MODES}every_kernel_runs_before_the_first_capture",
    f"{MODES}a_plan_that_cannot_be_captured[invalidates-block2]",
)
FOREIGN, RESIZED = f"{MODES}foreign_nodes_are_refused", f"{RESIZING}as_if_pillow_had_done_it"

FAULTS = [  # file, what stands there, what takes its place, who notices
    ("program.py", "self.place(capacity_name(number - 1)) if came is None else 0", "0", GRAPH),
    ("program.py", 'self.place("thresholds") + 4 * number', 'self.place("thresholds")', GRAPH),
    ("program.py", "if out != full:", "if False:", GRAPH),
    ("program.py", "            self._fill_taps(number, stream)", "            pass", GRAPH),
    ("program.py", "        self._write_constants()\n        self._warm", "        self._warm", COUNTS),
    ("program.py", "        self._warm_up_kernels(stream_address(stream))\n", "", WARM),
    ("chain.py", "        obstacles = find_obstacles(program)\n", "        obstacles = []\n", OBSTACLE),
    ("program.py", 'int(choice == "fixed")', "1", COUNTS),
    ("memory.py", "if until < now", "if until <= now", APART),
    ("memory.py", "max(gathers, default=number)", "number", APART),
    ("memory.py", " and step.outputs[0].name not in manifest.taps", "", GRAPH),
    ("graph_mode.py", "default_value=len(capacities)", "default_value=0", BODIES),
    ("graph_mode.py", "kept, handles[number])", "kept, 0)", GRAPH),
    ("graph_mode.py", "        check_nodes(", "        str(", FOREIGN),
    ("graph_mode.py", "if copies:", "if True:", RESIZED),
    ("capture.py", "        _abandon(builder.end_building)\n", "", REFUSED),
    ("graph_mode.py", "        self._transfers.enqueue_own_labels(stream_address(self._stream))\n", "", RESIZED),
    ("inputs.py", "self._program.own_labels.read() if self.resizes else ", "", RESIZED),
    ("mode.py", "graph = self._without_copies", "pass", RESIZED),
    ("stepped_modes.py", "            self._stream.sync()\n            kept", "            kept", SEGMENTED),
    ("stepped_modes.py", "if number < decisions and kept:", "if False:", SEGMENTED),
    ("stepped_modes.py", "came, kept = kept, self._counter.read()", "kept = self._counter.read()", EXACT),
    ("resizing.py", "place + source.scratch", "place + source.pixels", RESIZED),
    ("chain.py", "while waiting and self._dead is None:", "while False:", f"{RESIZING}a_stream_that_nobody_ends"),
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
        for name, old, new, test in FAULTS:
            file = package / "runtime" / "gpu" / name
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
    # without site, whose hook for the editable install comes first; without bytecode, which tells changes apart by the second
    path = os.pathsep.join([str(folder), *site.getsitepackages()])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
