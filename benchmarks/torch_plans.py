"""Describes the plans of a model without exporting it: a manifest without files, and the steps of a plan set.

A ViT-L has weights of 1.2 GB, which need not go through files of ONNX to be timed. Tensors are named and typed as
`dovit.engines.lowering` leaves them; that they are the same is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch
from torch import nn

from dovit.export.describe import describe, without_cells
from dovit.export.macs import step_macs
from dovit.export.model import DoViT
from dovit.export.model.config import (
    EomtDecoder,
    ModelConfig,
    SegmenterLinearDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
)
from dovit.runtime.bundle.manifest import Manifest, Step
from dovit.runtime.bundle.plans import Plan, PlanSet, PlanStep, Precision
from dovit.runtime.bundle.tensors import DType, TensorSpec
from dovit.runtime.errors import UsageError

ELEMENTS: dict[Precision, DType] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def manifest_of(model: DoViT, capacities: Sequence[int]) -> Manifest:
    """Of a bundle of `model` that was never written: its steps name no files and no tensors."""
    config = model.config
    modules = parts_of(model)
    macs = step_macs(config)
    steps = [
        Step(name=name, onnx=None, inputs=(), outputs=(), parameters=_parameters(parts), macs=of_step)
        for (name, parts), of_step in zip(modules.items(), macs, strict=True)
    ]
    return describe(config, capacities, steps, {})


def parts_of(model: DoViT) -> dict[str, list[nn.Module]]:
    """The modules of stem, block2 … block{D+1} and decoder."""
    parts: dict[str, list[nn.Module]] = {}
    for number, block in enumerate(model.config.blocks):
        own: list[nn.Module] = [model.backbone.layers[layer] for layer in block]
        own.append(model.corrections[number - 1] if number else model.backbone.patch_embed)
        if number < len(model.heads):
            own += [model.heads[number], model.lenses[number]]
        parts["stem" if number == 0 else f"block{number + 1}"] = own
    return parts | {"decoder": [model.refinement, model.backbone.norm, model.decoder]}


def plans_of(model: DoViT, precision: Precision, batch: int) -> PlanSet:
    """The steps of `model` as TensorRT-RTX's would be cut, for `batch` images at a time. Raises UsageError where torch's blocks
    would not compute it."""
    check_blocks(model.config)
    described = _Described(model, ELEMENTS[precision], batch)
    return PlanSet(
        flavour="tensorrt-rtx",
        version=f"torch {torch.__version__}",
        cuda=None,
        compute_capabilities=(),
        precision=precision,
        batch=batch,
        plugin_version=None,
        workspace_mib=None,
        optimisation_level=None,
        steps=tuple(described.steps()),
    )


class _Described:
    def __init__(self, model: DoViT, element: DType, batch: int) -> None:
        self._config, self._element, self._batch = model.config, element, batch
        self._parts = parts_of(model)

    def steps(self) -> list[PlanStep]:
        config = self._config
        found: list[PlanStep] = []
        for number, block in enumerate(config.blocks):
            step = "stem" if number == 0 else f"block{number + 1}"
            tapped = {n + 1: self.tapped(n, number, block) for n in block if n + 1 in config.taps}
            outputs = [*tapped.values(), self.tokens(f"tokens{number + 1}", number)]
            outputs = list({spec.name: spec for spec in outputs}.values())
            head = config.decisions[number] if number < len(config.decisions) else None
            lens = self.tokens(f"lens{number + 1}", number) if head is not None and head.lens is not None else None
            alone = None  # what a lens that sees neighbours makes of each token by itself
            if head is not None and head.lens is not None and head.lens.kernel > 1:
                alone = self.tokens(f"lens{number + 1}_alone", number)
            if head is not None and not head.on_map and alone is None:
                outputs.append(self.confidence(number))
            if lens is not None:
                outputs.append(alone or lens)
            if number:
                found.append(self.gather(number, step))
                inputs = [self.tokens(f"gathered{number}", number)]
                if config.cells is not None or config.backbone.rotary is not None:
                    inputs.append(self.index(number))  # where the tokens are, for their positions or the cells
                found.append(self.plan(step, step, inputs, outputs))
            else:
                found.append(self.plan(step, step, [self.image()], [*self.state(0)[1:], *outputs]))
            found += [self.reconstruct(f"tap{layer}", step, spec, number) for layer, spec in tapped.items()]
            if head is not None:
                if lens is not None and alone is not None:
                    whole = self.reconstruct(f"lens{number + 1}_map", step, alone, number)
                    given = [alone, self.index(number), whole.outputs[0]]
                    found += [whole, self.plan(f"{step}-2", step, given, [self.confidence(number), lens])]
                if lens is not None:
                    found.append(self.reconstruct(f"full{number + 1}", step, lens, number))
                if head.on_map:
                    whole = self.reconstruct(
                        f"map{number + 1}", step, self.tokens(f"tokens{number + 1}", number), number
                    )
                    given = [self.index(number), whole.outputs[0]]
                    found += [whole, self.plan(f"{step}-2", step, given, [self.confidence(number)])]
                found.append(self.decide(number + 1, step))
        last = len(config.decisions)
        found.append(self.reconstruct("sequence", "decoder", self.tokens(f"tokens{last + 1}", last), last))
        taps = [self.full(f"tap{layer}") for layer in config.taps]
        logits = TensorSpec(name="logits", dtype="float32", shape=(self._batch, config.classes, *_logits_size(config)))
        found.append(self.plan("decoder", "decoder", [*taps, self.full("sequence")], [logits]))
        labels = TensorSpec(
            name="labels", dtype="uint8" if config.classes <= 256 else "int16", shape=(self._batch, *config.image_size)
        )
        return [*found, PlanStep(name="labels", step="decoder", kind="labels", inputs=(logits,), outputs=(labels,))]

    def image(self) -> TensorSpec:
        return TensorSpec(name="image", dtype="uint8", shape=(self._batch, *self._config.image_size, 3))

    def tokens(self, name: str, number: int) -> TensorSpec:
        """All tokens after decision `number`, prefix tokens first."""
        every = self._config.prefix + self._config.tokens
        shape = (self._batch, f"length{number}" if number else every, self._config.backbone.embed_dim)
        return TensorSpec(name=name, dtype=self._element, shape=shape)

    def tapped(self, layer: int, number: int, block: range) -> TensorSpec:
        """The tokens that `layer` (from 0) leaves. Those of the stem have no merged tokens of cells yet."""
        config = self._config
        if number or config.cells is None:
            return self.tokens(_name(layer, number, block), number)
        shape = (self._batch, config.backbone.prefix + config.tokens, config.backbone.embed_dim)
        name = without_cells("tokens1") if layer == block[-1] else f"layers.{layer + 1}.out"
        return TensorSpec(name=name, dtype=self._element, shape=shape)

    def full(self, name: str) -> TensorSpec:
        shape = (self._batch, self._config.tokens, self._config.backbone.embed_dim)
        return TensorSpec(name=name, dtype=self._element, shape=shape)

    def index(self, number: int) -> TensorSpec:
        return TensorSpec(name=f"index{number}", dtype="int32", shape=(self._batch, self.kept(number)))

    def kept(self, number: int) -> int | str:
        return f"kept{number}" if number else self._config.tokens

    def confidence(self, number: int) -> TensorSpec:
        shape = (self._batch, self.kept(number))
        return TensorSpec(name=f"confidence{number + 1}", dtype="float32", shape=shape)

    def keep(self, number: int) -> TensorSpec:
        return TensorSpec(name=f"keep{number}", dtype="int32", shape=(self._batch, f"kept{number}"))

    def state(self, number: int) -> list[TensorSpec]:
        """Where every token is after decision `number`: the tokens that its block left, full, index and the sums."""
        total = TensorSpec(
            name=f"stopped_sum{number}", dtype="float32", shape=(self._batch, self._config.backbone.embed_dim)
        )
        return [self.tokens(f"tokens{number + 1}", number), self.full(f"full{number}"), self.index(number), total]

    def decide(self, number: int, step: str) -> PlanStep:
        threshold = TensorSpec(name=f"threshold{number}", dtype="float32", shape=())
        capacities = TensorSpec(name="capacities", dtype="int64", shape=("capacities",))
        inputs = (self.confidence(number - 1), threshold, capacities)
        return PlanStep(name=f"decide{number}", step=step, kind="decide", inputs=inputs, outputs=(self.keep(number),))

    def gather(self, number: int, step: str) -> PlanStep:
        """The gather after decision `number`; the sums after the last one are not needed."""
        tokens, full, index, total = self.state(number - 1)
        _, new_full, new_index, new_total = self.state(number)
        counts = [TensorSpec(name=f"stopped_count{k}", dtype="int64", shape=(1,)) for k in (number - 1, number)]
        outputs = [self.tokens(f"gathered{number}", number), new_index, new_full]
        if self._config.decisions[number - 1].lens is not None:
            full = outputs.pop()  # which has what the lens made of the tokens; nobody reads what the gather makes
        if number < len(self._config.decisions):
            outputs += [new_total, counts[1]]
        return PlanStep(
            name=f"gather{number}",
            step=step,
            kind="gather",
            inputs=(tokens, index, full, total, counts[0], self.keep(number)),
            outputs=tuple(outputs),
        )

    def reconstruct(self, name: str, step: str, tokens: TensorSpec, number: int) -> PlanStep:
        inputs = (self.full(f"full{number}"), tokens, self.index(number))
        return PlanStep(
            name=f"{name}/reconstruct", step=step, kind="reconstruct", inputs=inputs, outputs=(self.full(name),)
        )

    def plan(self, name: str, step: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> PlanStep:
        parameters = _parameters(self._parts[step])
        of_element = torch.empty(0, dtype=getattr(torch, self._element)).element_size()
        described = Plan(
            file="torch",
            profiles=(),
            parameters=parameters,
            network_layers=0,
            layers=(),
            attentions=0,
            fused_attentions=0,
            weight_bytes=parameters * of_element,
            activation_bytes=0,
            build_seconds=0.0,
        )
        return PlanStep(name=name, step=step, kind="plan", inputs=tuple(inputs), outputs=tuple(outputs), plan=described)


def check_blocks(config: ModelConfig) -> None:
    """Raises UsageError for a model whose layers take more than its tokens and their positions."""
    if isinstance(config.decoder, EomtDecoder):
        raise UsageError("--backend torch does not run EoMT's queries: give another model, or compare its plans")


def _name(layer: int, number: int, block: range) -> str:
    """Of the tokens that `layer` (from 0) leaves: the last one of a block leaves the block's."""
    return f"tokens{number + 1}" if layer == block[-1] else f"layers.{layer + 1}.out"


def _logits_size(config: ModelConfig) -> tuple[int, int]:
    decoder = config.decoder
    match decoder:
        case SetrUpDecoder():
            scale = decoder.up_scale**decoder.num_convs
        case SetrMlaDecoder():
            scale = decoder.up_scale
        case SegmenterLinearDecoder() | SegmenterMaskDecoder():
            scale = 1
        case EomtDecoder():
            raise AssertionError("check_blocks refuses it")
        case _:
            assert_never(decoder)
    return config.grid[0] * scale, config.grid[1] * scale


def _parameters(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
