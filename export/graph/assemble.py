"""A DoViT as one ONNX graph: standard operators, and TokenDecide, TokenGather, TokenReconstruct between the blocks.

Tensors that cross from one block to the next carry their block's number: `tokens1` leaves block 1; the gather after
it makes `index1`, `full1`, `stopped_sum1`, `stopped_count1`; the state before any decision has number 0.

A decision with a lens maps the tokens of its block to `lens1`, which its head reads, and writes these to `full1` before it
decides: the positions of kept tokens are written again by the block that moves them on. What its gather makes of `full` is
then not used.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_graphsurgeon as gs
import torch
from torch import Tensor, nn

from dovit.export.describe import without_cells
from dovit.export.graph.functions import DOMAIN_VERSION, OPSET
from dovit.export.graph.modules import (
    AddCells,
    Context,
    Decode,
    Embed,
    Join,
    Leave,
    MapHead,
    Start,
    TokenHead,
    replaced,
)
from dovit.export.graph.pieces import Piece, add_piece, trace, weights_of
from dovit.export.model import DoViT
from dovit.export.model.config import LensConfig
from dovit.export.model.eomt import Eomt
from dovit.export.model.heads import DecisionHead
from dovit.export.model.lens import Lens
from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN, PLUGIN_ATTRIBUTES

EXAMPLE_BATCH, EXAMPLE_TOKENS = 2, 7  # sizes 0 and 1 would be taken for constants by the tracer


def context_name(what: str, number: int) -> str:
    """The name of what the layers of block `number` (from 1) take beside the tokens: cosine, sine, or the bias of the keys."""
    return f"{what}{number}"


def uncorrected(name: str) -> str:
    """The name of a block's tokens `name` before a correction."""
    return f"uncorrected_{name}"


REFINED = "refined"  # the full sequence `sequence` behind a refinement


class _Assembler:
    def __init__(self, model: DoViT) -> None:
        self.model, self.config = model, model.config
        self.prefix, self.dim = model.config.backbone.prefix, model.config.backbone.embed_dim
        self.graph = gs.Graph(opset=OPSET, name="dovit", import_domains=_opsets(), ir_version=10)
        self._heads: dict[object, Piece] = {}
        self._contexts: dict[bool, Piece] = {}
        self._lenses: dict[int, Piece] = {}
        self._neighbours: dict[LensConfig, Piece] = {}
        self._corrections: dict[int, Piece] = {}
        self.lenses: list[gs.Variable] = []

    def piece(self, name: str, piece: Piece, module: nn.Module, data: list[gs.Variable]) -> list[gs.Variable]:
        return add_piece(self.graph, piece, name, weights_of(module), data)

    def rename(self, variable: gs.Variable, name: str, shape: list[int | str]) -> gs.Variable:
        variable.name, variable.shape = name, shape
        return variable

    def node(self, op: str, name: str, inputs: list[gs.Variable], outputs: list[gs.Variable]) -> list[gs.Variable]:
        attrs = {} if op == "TokenDecide" else {"prefix": self.prefix}
        if op == "TokenGather" and not self.config.merge:
            attrs["merge"] = 0  # left out where it is 1, so that plugins of older versions take those nodes
        if op == "TokenGather" and self.config.cells is not None:
            attrs |= {"cell_side": self.config.merge_cells, "columns": self.config.grid[1]}
        self.graph.nodes.append(gs.Node(op, name, attrs | PLUGIN_ATTRIBUTES, inputs, outputs, OPERATOR_DOMAIN))
        return outputs

    def reconstruct(self, name: str, full: gs.Variable, tokens: gs.Variable, index: gs.Variable) -> gs.Variable:
        out = gs.Variable(name, np.float32, ["batch", self.config.tokens, self.dim])
        return self.node("TokenReconstruct", f"{name}/reconstruct", [full, tokens, index], [out])[0]

    def example(self, *shape: int) -> Tensor:
        return torch.zeros(EXAMPLE_BATCH, *shape)

    def build(self) -> gs.Graph:
        config, model, tokens = self.config, self.model, self.config.tokens
        height, width = config.image_size
        image = gs.Variable("image", np.uint8, ["batch", height, width, 3])
        capacities = gs.Variable("capacities", np.int64, ["capacities"])
        self.graph.inputs = [image] + ([capacities] if config.decisions else [])

        embed = Embed(model)
        example = torch.zeros(EXAMPLE_BATCH, height, width, 3, dtype=torch.uint8)
        traced = trace(embed, {"image": (example, {0: "batch"})}, ["tokens"])
        [current] = add_piece(self.graph, _short(traced), "embed", _short_weights(embed), [image])

        layer_piece = self.layer("tokens", 1)
        start = Start(self.prefix)
        every = self.example(self.prefix + tokens, self.dim)
        traced = trace(start, {"tokens": (every, {0: "batch"})}, ["index", "full", "stopped_sum"])
        index, full, total = self.piece("start", traced, start, [current])
        index = self.rename(index, "index0", ["batch", tokens])
        full = self.rename(full, "full0", ["batch", tokens, self.dim])
        total = self.rename(total, "stopped_sum0", ["batch", self.dim])
        count: gs.Tensor = gs.Constant("stopped_count0", np.zeros(1, np.int64))
        taps: list[gs.Variable] = []
        kept: int | str = tokens  # M and P+M, numbers or names of dimensions
        length: int | str = self.prefix + tokens
        for number, block in enumerate(config.blocks, start=1):
            context = self.context(number, index)
            if number == 2 and config.cells is not None:
                layer_piece = self.layer("tokens", number)
            for layer in block:
                if layer == config.joining_layer:
                    current, *context = self.join([current, *context])
                    # ONNX Runtime takes dimensions of one name for one size, and there are more tokens now
                    layer_piece = self.layer("joined", number)
                module = model.backbone.layers[layer]
                [current] = self.piece(f"layers.{layer + 1}", layer_piece, module, [current, *context])
                if layer + 1 in config.taps:
                    current.shape = ["batch", length, self.dim]
                    taps.append(self.reconstruct(f"tap{layer + 1}", full, current, index))
            if number == 1 and config.cells is not None:
                current = self.add_cells(self.rename(current, without_cells("tokens1"), ["batch", length, self.dim]))
                self.prefix = config.prefix
                length = self.prefix + tokens
            if number > len(model.heads) and config.joining_layer is not None:
                current, *taps = self.leave(current)
            if number > 1:
                current = self.correction(number, current, length)
            current = self.rename(current, f"tokens{number}", ["batch", length, self.dim])
            if number > len(model.heads):
                break
            threshold = gs.Variable(f"threshold{number}", np.float32, [])
            self.graph.inputs.append(threshold)
            mapped = self.lens(number, current, full, index)
            q = self.head(number, current if mapped is None else mapped, full, index, kept)
            if mapped is not None:
                full = self.reconstruct(f"full{number}", full, mapped, index)
                self.lenses.append(mapped)
            kept, length = f"kept{number}", f"length{number}"
            keep = gs.Variable(f"keep{number}", np.int32, ["batch", kept])
            self.node("TokenDecide", f"decide{number}", [q, threshold, capacities], [keep])
            outputs = [
                gs.Variable(f"gathered{number}", np.float32, ["batch", length, self.dim]),
                gs.Variable(f"index{number}", np.int32, ["batch", kept]),
                gs.Variable(
                    f"full{number}" if mapped is None else f"unused_full{number}",
                    np.float32,
                    ["batch", tokens, self.dim],
                ),
                gs.Variable(f"stopped_sum{number}", np.float32, ["batch", self.dim]),
                gs.Variable(f"stopped_count{number}", np.int64, [1]),
            ]
            state = [current, index, full, total, count, keep]
            current, index, gathered, total, count = self.node("TokenGather", f"gather{number}", state, outputs)
            full = gathered if mapped is None else full

        sequence = self.refine(self.reconstruct("sequence", full, current, index))
        # where a decision keeps no token, the decoder reads what its lens made
        self.graph.outputs = [*self.decoder([sequence, *taps]), *self.lenses]
        return self.graph

    def layer_inputs(self, count: str, number: int) -> dict[str, tuple[Tensor, dict[int, str]]]:
        """Examples of what a layer of block `number` (from 1) takes: tokens, and the context. `count`: the name of how many."""
        every = self.prefix + EXAMPLE_TOKENS
        data = {"tokens": (self.example(every, self.dim), {0: "batch", 1: count})}
        for name in self.context_names(number):
            if name == "bias":
                data[name] = self.example(1, 1, every), {0: "batch", 3: count}
            else:
                data[name] = self.example(1, every, self.config.backbone.head_dim), {0: "batch", 2: count}
        return data

    def layer(self, count: str, number: int) -> Piece:
        """A layer of the backbone in block `number` (from 1), traced."""
        given = self.layer_inputs(count, number)
        piece = trace(self.model.backbone.layers[0], given, ["out"])
        if "bias" in given:
            # batch and number of tokens are those of the tokens too, and then nothing but the scores' sum needs the bias
            tokens, bias = piece.graph.inputs[0], piece.graph.inputs[len(given) - 1]
            for node in [node for node in bias.outputs if node.op == "Shape"]:
                if node.attrs["start"] == 3:
                    node.attrs |= {"start": 1, "end": 2}
                node.inputs = [tokens]
        return piece

    def add_cells(self, tokens: gs.Variable) -> gs.Variable:
        """The tokens of block 1 with the merged token of each cell behind the prefix tokens."""
        module = AddCells(self.prefix, self.config)
        every = self.example(self.prefix + self.config.tokens, self.dim)
        traced = trace(module, {"tokens": (every, {0: "batch"})}, ["with_cells"])
        return self.piece("cells", traced, module, [tokens])[0]

    def join(self, inputs: list[gs.Variable]) -> list[gs.Variable]:
        """EoMT's queries before the tokens: tokens and rotary positions of a block."""
        join, example = Join(cast(Eomt, self.model.decoder)), self.layer_inputs("tokens", len(self.config.blocks))
        traced = trace(join, example, [f"joined_{name}" for name in example])
        return add_piece(self.graph, _short(traced), "queries", _short_weights(join), inputs)

    def leave(self, tokens: gs.Variable) -> list[gs.Variable]:
        """The tokens after the last layer without EoMT's queries, and what these predict: `query_classes`, `query_masks`."""
        leave = Leave(self.model)
        queries, classes = self.config.queries, self.config.classes
        some = self.example(queries + self.prefix + EXAMPLE_TOKENS, self.dim)
        traced = trace(leave, {"tokens": (some, {0: "batch", 1: "joined"})}, ["left", "classes", "masks"])
        left, *made = add_piece(self.graph, _short(traced), "prediction", _short_weights(leave), [tokens])
        shapes: dict[str, list[int | str]] = {
            "query_classes": ["batch", classes, queries],
            "query_masks": ["batch", queries, self.dim],
        }
        return [left, *(self.rename(v, name, shape) for v, (name, shape) in zip(made, shapes.items(), strict=True))]

    def context(self, number: int, index: gs.Variable) -> list[gs.Variable]:
        """What the layers of block `number` (from 1) take beside the tokens: cosines and sines of rotary positions, each
        [B, 1, P+M, d], and where tokens are merged by cell the bias of the keys, [B, 1, 1, P+M]."""
        module, names = self.context_module(number), self.context_names(number)
        if not names:
            return []
        if module.merged not in self._contexts:
            some = torch.zeros(EXAMPLE_BATCH, EXAMPLE_TOKENS, dtype=torch.int32)
            example = {"index": (some, {0: "batch", 1: "kept"})}
            self._contexts[module.merged] = trace(module, example, [f"made_{name}" for name in names])
        made = self.piece(f"context{number}", self._contexts[module.merged], module, [index])
        for name, variable in zip(names, made, strict=True):
            variable.name = context_name(name, number)
        return made

    def context_module(self, number: int) -> Context:
        return Context(self.model.backbone, merged=number > 1)

    def context_names(self, number: int) -> list[str]:
        rotary = ["cosine", "sine"] if self.model.backbone.rotary is not None else []
        return rotary + (["bias"] if number > 1 and self.config.cells is not None else [])

    def lens(self, number: int, tokens: gs.Variable, full: gs.Variable, index: gs.Variable) -> gs.Variable | None:
        """`lens{number}` [B, P+M, E], what the lens of a decision makes of its block's tokens; None where it has none."""
        config, lens = self.config.decisions[number - 1].lens, self.model.lenses[number - 1]
        if config is None:
            return None
        lens = cast(Lens, lens)
        by_itself = lens if lens.neighbours is None else replaced(lens, neighbours=None)
        hidden = 0 if by_itself.hidden is None else config.hidden
        some = self.example(self.prefix + EXAMPLE_TOKENS, self.dim), {0: "batch", 1: "tokens"}
        if hidden not in self._lenses:
            self._lenses[hidden] = trace(by_itself, {"tokens": some}, ["mapped"])
        [mapped] = self.piece(f"lens{number}", self._lenses[hidden], by_itself, [tokens])
        if lens.neighbours is not None:
            mapped = self.rename(mapped, f"lens{number}_alone", list(tokens.shape or []))
            around = self.reconstruct(f"lens{number}_map", full, mapped, index)
            if config not in self._neighbours:
                whole = self.example(self.config.tokens, self.dim), {0: "batch"}
                positions = torch.zeros(EXAMPLE_BATCH, EXAMPLE_TOKENS, dtype=torch.int32), {0: "batch", 1: "kept"}
                example = {"tokens": some, "full": whole, "index": positions}
                self._neighbours[config] = trace(lens.neighbours, example, ["seen"])
            [mapped] = self.piece(
                f"neighbours{number}", self._neighbours[config], lens.neighbours, [mapped, around, index]
            )
        return self.rename(mapped, f"lens{number}", list(tokens.shape or []))

    def correction(self, number: int, tokens: gs.Variable, length: int | str) -> gs.Variable:
        """The tokens of block `number` (from 2) as the correction of the decision before it makes them, where it has one."""
        config, correction = self.config.decisions[number - 2].correction, self.model.corrections[number - 2]
        if config is None:
            return tokens
        self.rename(tokens, uncorrected(f"tokens{number}"), ["batch", length, self.dim])
        if config.hidden not in self._corrections:
            some = self.example(self.prefix + EXAMPLE_TOKENS, self.dim)
            example = {"tokens": (some, {0: "batch", 1: "tokens"})}
            self._corrections[config.hidden] = trace(correction, example, ["corrected"])
        [corrected] = self.piece(f"correction{number}", self._corrections[config.hidden], correction, [tokens])
        return corrected

    def refine(self, sequence: gs.Variable) -> gs.Variable:
        """The full sequence as the refinement makes it, where there is one."""
        refinement = self.model.refinement
        if self.config.refinement is None:
            return sequence
        example = {"full": (self.example(self.config.tokens, self.dim), {0: "batch"})}
        traced = trace(refinement, example, ["refined"])
        [refined] = self.piece("refinement", traced, refinement, [sequence])
        return self.rename(refined, REFINED, list(sequence.shape or []))

    def head(
        self, number: int, tokens: gs.Variable, full: gs.Variable, index: gs.Variable, kept: int | str
    ) -> gs.Variable:
        settings, head = self.config.decisions[number - 1], cast(DecisionHead, self.model.heads[number - 1])
        structure = settings.model_copy(update={"layer": 1})
        wrapped: nn.Module
        if settings.on_map:
            wrapped = MapHead(head, self.config.grid, self.config.least_kept)
            whole = self.example(self.config.tokens, self.dim)
            some = torch.zeros(EXAMPLE_BATCH, EXAMPLE_TOKENS, dtype=torch.int32)
            example = {"full": (whole, {0: "batch"}), "index": (some, {0: "batch", 1: "kept"})}
            data = [self.reconstruct(f"map{number}", full, tokens, index), index]
        else:
            wrapped = TokenHead(head, self.prefix, self.config.least_kept)
            kept_tokens = self.example(self.prefix + EXAMPLE_TOKENS, self.dim)
            example = {"tokens": (kept_tokens, {0: "batch", 1: "tokens"})}
            data = [tokens]
        if structure not in self._heads:
            self._heads[structure] = trace(wrapped, example, ["confidence"])
        [q] = self.piece(f"head{number}", self._heads[structure], wrapped, data)
        return self.rename(q, f"confidence{number}", ["batch", kept])

    def decoder(self, data: list[gs.Variable]) -> list[gs.Variable]:
        decode = Decode(self.model)
        example = {v.name: (self.example(*v.shape[1:]), {0: "batch"}) for v in data}
        traced = trace(decode, example, ["logits", "labels"])
        logits, labels = add_piece(self.graph, _short(traced), "decoder", _short_weights(decode), data)
        self.rename(logits, "logits", ["batch", self.config.classes, *(logits.shape or [])[2:]])
        self.rename(labels, "labels", ["batch", *self.config.image_size])
        return [logits, labels]


def _short(piece: Piece) -> Piece:
    for tensor in piece.graph.inputs[piece.data :]:
        tensor.name = _short_name(tensor.name)
    return piece


def _short_weights(module: nn.Module) -> dict[str, Tensor]:
    return {_short_name(name): t for name, t in weights_of(module).items()}


def _short_name(name: str) -> str:
    """A weight's name without the module that every weight of its piece lies in."""
    return (
        name.removeprefix("model.")
        .removeprefix("decoder.")
        .replace("backbone.norm.", "final_norm.")
        .removeprefix("backbone.")
    )


def _opsets() -> list[object]:
    import onnx

    return [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(OPERATOR_DOMAIN, DOMAIN_VERSION)]


def assemble(model: DoViT) -> gs.Graph:
    """The whole of `model` as one graph: inputs image, capacities, threshold1…D; outputs logits and labels.

    Weights are views of the model's tensors: nothing is copied until the graph is written.
    """
    return _Assembler(model).build()
