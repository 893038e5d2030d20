"""Runs a model's blocks in torch instead of TensorRT plans, on memory at given addresses, for GPUs without TensorRT.

What a block allocates comes from a pool of its program's own, so a graph that was captured finds it there in every replay.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dovit.benchmarks.torch_plans import ELEMENTS, check_blocks
from dovit.export.describe import without_cells
from dovit.export.model import DoViT
from dovit.export.model.lens import Lens
from dovit.export.model.token_pass import TokenState, add_cells, confidence
from dovit.runtime.bundle.plans import PlanStep, Precision
from dovit.runtime.bundle.tensors import DType
from dovit.runtime.gpu.device import PlanCall

# as numpy's array interface names them; it has no bfloat16, of which only the size matters for finding the memory
TYPES: dict[DType, str] = {
    "uint8": "|u1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "bfloat16": "<i2",
    "float32": "<f4",
}


class TorchBlocks:
    """A copy of a model in one precision, on the host or a GPU, and the memory that its blocks need for a while."""

    def __init__(self, model: DoViT, precision: Precision, device: str | torch.device = "cpu") -> None:
        check_blocks(model.config)
        self.device = torch.device(device)
        dtype = getattr(torch, ELEMENTS[precision])
        self.model = copy.deepcopy(model).eval().requires_grad_(False).to(self.device, dtype)
        self._dtype = dtype
        self._mean = torch.tensor(model.config.mean, device=self.device)
        self._std = torch.tensor(model.config.std, device=self.device)
        self._views: dict[tuple[object, ...], Tensor] = {}
        self._pools: dict[int, Any] = {}
        self._last_pool: int | None = None

    def engine(self, step: PlanStep) -> TorchEngine:
        """What runs `step`, a plan."""
        return TorchEngine(self, step)

    def compute(self, step: PlanStep, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of `step`, which is known by the names of its tensors, as `dovit.export.graph.assemble` gives them."""
        made: dict[str, Tensor] = {}
        config = self.model.config
        if "image" in given:
            # normalised in float32, as the lowered graphs do it
            pixels = ((given["image"].float() - self._mean) / self._std).to(self._dtype)
            embedded = self.model.backbone.embed(pixels.permute(0, 3, 1, 2))
            batch = embedded.shape[0]
            index = torch.arange(config.tokens, dtype=torch.int32, device=self.device).expand(batch, -1)
            tokens = self._block(0, embedded, index, made)
            made["full0"] = tokens[:, config.prefix :]
            made["index0"] = index
            made["stopped_sum0"] = torch.zeros(batch, tokens.shape[2], device=self.device)
        for name, value in given.items():
            if name.startswith("gathered"):
                number = int(name.removeprefix("gathered"))
                self._block(number, value, given.get(f"index{number}"), made)
            elif name.endswith("_alone"):
                self._neighbours(int(name.removeprefix("lens").removesuffix("_alone")), given, made)
            elif name == "sequence":
                refined = self.model.refinement(value)
                logits = self.model.decode(refined, [given[f"tap{layer}"] for layer in config.taps]).float()
                made["logits"] = logits
        for spec in step.outputs:
            if spec.name.startswith("confidence"):
                made[spec.name] = self._confidence(int(spec.name.removeprefix("confidence")), given, made)
            elif spec.name == "labels":
                made["labels"] = self.model.resize_logits(made["logits"]).argmax(dim=1)
        return made

    def _block(self, number: int, tokens: Tensor, index: Tensor | None, made: dict[str, Tensor]) -> Tensor:
        """Block `number` (from 0) on tokens [B, P+M, E] at `index` [B, M], which is None where the model needs none."""
        model, config = self.model, self.model.config
        context = () if index is None else model.backbone.context(index, merged=number > 0)
        for layer in config.blocks[number]:
            tokens = model.backbone.layers[layer](tokens, *context)
            made[f"layers.{layer + 1}.out"] = tokens
        if number:
            tokens = model.corrections[number - 1](tokens)
        elif config.cells is not None:
            prefix, made[without_cells("tokens1")] = config.backbone.prefix, tokens
            tokens = add_cells(TokenState.start(tokens, prefix), prefix, config.cells).tokens
        made[f"tokens{number + 1}"] = tokens
        if number < len(model.heads):
            lens, name = model.lenses[number], f"lens{number + 1}"
            sees = isinstance(lens, Lens) and lens.neighbours is not None  # the rest is made when the map is there
            made[f"{name}_alone" if sees else name] = lens(tokens)
        return tokens

    def _neighbours(self, number: int, given: Mapping[str, Tensor], made: dict[str, Tensor]) -> None:
        """The lens of decision `number` (from 1) on the map of what it makes of each token by itself."""
        neighbours = cast(Lens, self.model.lenses[number - 1]).neighbours
        assert neighbours is not None
        name = f"lens{number}"
        made[name] = neighbours(given[f"{name}_alone"], given[f"{name}_map"], given[f"index{number - 1}"])

    def _confidence(self, number: int, given: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> Tensor:
        """Of decision `number`, from 1."""
        config, head = self.model.config, self.model.heads[number - 1]
        if config.decisions[number - 1].on_map:
            pixels = given[f"map{number}"].transpose(1, 2).unflatten(2, config.grid)  # [B, N, E] → [B, E, h, w]
            return confidence(head(pixels).flatten(2)).gather(1, given[f"index{number - 1}"].long())
        tokens = made[f"lens{number}"][:, config.prefix :].transpose(1, 2)[..., None]  # [B, E, M, 1]
        return confidence(head(tokens)[..., 0])

    def view(self, place: int, shape: tuple[int, ...], dtype: DType) -> Tensor:
        """The memory at an address. Made once: during a capture the driver is asked for nothing but kernels and copies."""
        key = (place, shape, dtype)
        if key not in self._views:
            kind = TYPES[dtype]
            if self.device.type == "cuda":
                found = torch.as_tensor(_Region(place, shape, kind), device=self.device)
            else:
                found = _on_the_host(place, shape, kind)
            self._views[key] = found.view(getattr(torch, dtype))
        return self._views[key]

    @contextmanager
    def queued(self, stream: int, program: int) -> Iterator[None]:
        """What torch does within goes to `stream`, and its memory comes from the pool of `program`, whichever number that is."""
        if self.device.type != "cuda":
            yield
            return
        if program != self._last_pool:
            # cuBLAS keeps its workspace by stream, and a stream's address may be that of another program's old one: two
            # graphs that run at once must not share it
            torch._C._cuda_clearCublasWorkspaces()
            self._last_pool = program
        if program not in self._pools:
            self._pools[program] = torch.cuda.MemPool()
        on_stream = torch.cuda.stream(torch.cuda.ExternalStream(stream, device=self.device))
        in_pool = torch.cuda.use_mem_pool(self._pools[program], self.device)
        # float32 is to be float32, so that kept sets can be compared
        with on_stream, in_pool, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield


class TorchEngine:
    """See `dovit.runtime.gpu.device.DeviceEngine`."""

    scratch_bytes = 256  # asked for so that every program has an address of its own, by which its pool is found

    def __init__(self, owner: TorchBlocks, step: PlanStep) -> None:
        self._owner, self._step = owner, step

    @torch.no_grad()
    def enqueue(self, call: PlanCall, stream: int) -> None:
        """Queue the step. Nothing is set up for sizes."""
        owner = self._owner
        views = {
            spec.name: owner.view(call.addresses[spec.name], call.shapes[spec.name], spec.dtype)
            for spec in (*self._step.inputs, *self._step.outputs)
        }
        with owner.queued(stream, call.scratch):
            made = owner.compute(self._step, {spec.name: views[spec.name] for spec in self._step.inputs})
            for spec in self._step.outputs:
                views[spec.name].copy_(made[spec.name])

    def why_not_capturable(self, call: PlanCall, stream: int) -> str | None:
        """Nothing is known to: see DeviceEngine."""
        return None


class _Region:
    """Memory of another owner, for torch.as_tensor."""

    def __init__(self, place: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": kind, "data": (place, False), "version": 3}


def _on_the_host(place: int, shape: tuple[int, ...], kind: str) -> Tensor:
    memory = (ctypes.c_uint8 * (math.prod(shape) * np.dtype(kind).itemsize)).from_address(place)
    return torch.from_numpy(np.ctypeslib.as_array(memory).view(kind).reshape(shape))
