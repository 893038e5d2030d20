"""Processes that write and open one bundle at the same time. By itself, to try it for long:

python tests/writers.py BUNDLE WORK --writes 400     # of each of two writers; readers open the bundle meanwhile
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from dovit.runtime import load
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.open import open_bundle, read_manifest
from dovit.runtime.bundle.write import write_bundle
from dovit.runtime.errors import DovitError


def other_bundle(good: Path, other: Path) -> None:
    """The same bundle with a byte of every weight file changed, so with other names."""
    shutil.copytree(good, other)
    manifest = json.loads((other / "bundle.json").read_text())
    renamed: dict[str, str] = {}
    # weights first: the ONNX files have their names
    for name in sorted(manifest["files"], key=lambda name: name.endswith(".onnx")):
        data = (other / name).read_bytes()
        if name.endswith(".weights"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        for old, new in renamed.items():
            data = data.replace(Path(old).name.encode(), Path(new).name.encode())
        digest = hashlib.sha256(data).hexdigest()
        new = f"{name.rsplit('-', 1)[0]}-{digest[:12]}.{name.rsplit('.', 1)[1]}"
        (other / name).unlink()
        (other / new).write_bytes(data)
        del manifest["files"][name]
        manifest["files"][new] = {"sha256": digest, "size": len(data)}
        renamed[name] = new
    for step in manifest["steps"]:
        step["onnx"] = renamed[step["onnx"]]
        step["openvino"] = [renamed[name] for name in step["openvino"]]
    (other / "bundle.json").write_text(json.dumps(manifest))


def copy_bundle(source: Path, target: Path) -> None:
    """Write the bundle in `source` into `target` as an export does."""

    def fill(stage: Path) -> Manifest:
        manifest = read_manifest(source)
        for name in manifest.files:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, stage / name)
        return manifest

    write_bundle(target, fill)


def _run(role: str, one: Path, target: Path, count: int) -> collections.Counter[str]:
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        if one.with_suffix(".stop").exists():
            break
        try:
            if role == "write":
                copy_bundle(one, target)
            elif role == "open":
                open_bundle(target)
            else:
                load(target, threads=1)
            outcomes["whole"] += 1
        except DovitError as error:
            outcomes[str(error)] += 1
    return outcomes


def race_writers(
    good: Path, work: Path, writes: int, readers: tuple[str, ...] = ("open", "load")
) -> dict[str, dict[str, int]]:
    """Two writers, `writes` times each, and readers until they are done → what came of each process's attempts."""
    other_bundle(good, work / "other")
    shutil.copytree(good, work / "target")
    stop = work / "reader.stop"

    def start(role: str, one: Path, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, str(one), str(work / "target"), "--role", role, "--writes", str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    reading = {f"{role} {n}": start(role, work / "reader", 1 << 40) for n, role in enumerate(readers)}
    writing = {f"write {source.name}": start("write", source, writes) for source in (good, work / "other")}
    try:
        found = {name: json.loads(process.communicate(timeout=3600)[0]) for name, process in writing.items()}
        stop.touch()
        return found | {name: json.loads(process.communicate(timeout=600)[0]) for name, process in reading.items()}
    finally:
        for process in (*reading.values(), *writing.values()):
            process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--writes", type=int, default=400)
    parser.add_argument("--role")
    given = parser.parse_args()
    if given.role:
        print(json.dumps(_run(given.role, given.bundle, given.work, given.writes)))
    else:
        print(json.dumps(race_writers(given.bundle, given.work, given.writes), indent=1))
