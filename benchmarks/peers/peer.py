"""The peers: which there are, and the handle of one that runs in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from dovit.runtime.errors import DovitError
from dovit.runtime.providers import Provider

Precision = Literal["fp32", "bf16", "int8"]
Kind = Literal["chain", "onnxruntime", "openvino", "torch", "torch.compile"]


class Peer(BaseModel):
    """One row: a model under one runtime in one precision. Kinds other than `chain` run the dense model."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    precision: Precision
    model: str  # a bundle's folder, an ONNX file or, for torch, a checkpoint
    image: str  # a file of numpy: uint8 [H, W, 3]
    threads: int
    warmup: int
    provider: Provider = "cpu"
    keep: tuple[float, ...] | None = None  # shares of all tokens to keep; None: ξ = 1


def dense_peers(model: Path, checkpoint: Path | None, **same: Any) -> tuple[list[Peer], dict[str, str]]:
    """The peers of a dense ONNX `model`; those of torch need its `checkpoint`. Also why a row is left out, by its name."""
    onnx = str(model)
    found = [
        Peer(name="dense, ONNX Runtime fp32", kind="onnxruntime", precision="fp32", model=onnx, **same),
        Peer(name="dense, ONNX Runtime dynamic int8", kind="onnxruntime", precision="int8", model=onnx, **same),
        Peer(name="dense, OpenVINO fp32", kind="openvino", precision="fp32", model=onnx, **same),
        Peer(name="dense, OpenVINO bf16", kind="openvino", precision="bf16", model=onnx, **same),
        Peer(name="dense, OpenVINO int8", kind="openvino", precision="int8", model=onnx, **same),
    ]
    in_torch: list[tuple[str, Kind, Precision]] = [
        ("dense, torch eager fp32", "torch", "fp32"),
        ("dense, torch eager bf16", "torch", "bf16"),
        ("dense, torch.compile fp32", "torch.compile", "fp32"),
        ("dense, torch.compile bf16", "torch.compile", "bf16"),
    ]
    if checkpoint is None:
        return found, dict.fromkeys((name for name, _, _ in in_torch), "needs the checkpoint: give --ckpt")
    for name, kind, precision in in_torch:
        found.append(Peer(name=name, kind=kind, precision=precision, model=str(checkpoint), **same))
    return found, {}


def chain_peers(bundle: Path, keep: Sequence[float] | None, int8: Path | None = None, **same: Any) -> list[Peer]:
    """The chain with each provider and precision, at ξ = 1 and where `keep` is given at those shares. `int8`: the same model's
    bundle in int8."""
    found = []
    options: list[tuple[Provider, str, Precision]] = [
        ("cpu", "ONNX Runtime fp32", "fp32"),
        ("openvino", "OpenVINO fp32", "fp32"),
        ("openvino", "OpenVINO bf16", "bf16"),
    ]
    if int8 is not None:
        options.append(("openvino", "OpenVINO int8", "int8"))
    for shares in (None, None if keep is None else tuple(keep)):
        setting = "ξ = 1" if shares is None else f"keep {'/'.join(f'{share:g}' for share in shares)}"
        for provider, title, precision in options:
            name = f"chain {setting}, {title}"
            model = str(int8 if precision == "int8" else bundle)
            one = Peer(
                name=name, kind="chain", precision=precision, model=model, provider=provider, keep=shares, **same
            )
            if one not in found:
                found.append(one)
    return found


class Running:
    """A peer's process. Loading begins at once; `ready` waits for it."""

    def __init__(self, peer: Peer, folder: Path, number: int) -> None:
        """`folder`: for files between the two processes."""
        self.peer = peer
        self._labels = folder / f"{number}.npy"
        file = folder / f"{number}.json"
        file.write_text(peer.model_dump_json())
        self._errors = (folder / f"{number}.log").open("w+")
        command = [sys.executable, "-m", "dovit.benchmarks.peers.worker", str(file)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ready(self) -> dict[str, Any]:
        """What the worker says once it is warm. Raises DovitError with the reason where it cannot run."""
        return self._answer()

    def run(self) -> dict[str, Any]:
        """`seconds` of one image, and `peak_mib`, the process's largest resident memory."""
        assert self._process.stdin
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _answer raises the reason
        return self._answer()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def labels(self) -> Path:
        """File of numpy with the labels [1, H, W], once it is ready."""
        return self._labels

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            killed = " (out of memory?)" if status == -9 else ""
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or [""])[-1][:200]
            raise DovitError(f"its process ended with status {status}{killed}{f': {last}' if last else ''}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DovitError(answer["error"])
        return answer
