"""Runs the steps of a bundle in order: tensors are passed by name, and each decision sets how many tokens the next step gets."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dovit.runtime.buffers import RESULTS, ChainStep, Workspace
from dovit.runtime.bundle.dimensions import kept_dims
from dovit.runtime.bundle.manifest import DecisionSpec, Manifest, State
from dovit.runtime.engine import Engine
from dovit.runtime.errors import DovitError
from dovit.runtime.outputs import REMEDY, check_ascending, check_keep, check_labels, check_made

LOG = logging.getLogger("dovit")


@dataclass(frozen=True)
class DecisionResult:
    """Inputs and result of one decision, for a batch."""

    confidence: np.ndarray  # [B, M] float32
    index: np.ndarray  # [B, M] int32: positions of the M tokens
    keep: np.ndarray  # [B, K] int32: indices into the M tokens of those that are kept


def decision_maps(
    decisions: Sequence[DecisionResult], tokens: int, count: int, image: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Per decision [count, N]: which positions stay (bool), and the confidence (float32, NaN where already stopped)."""
    keep_maps = np.zeros((count, tokens), bool)
    confidence_maps = np.full((count, tokens), np.nan, np.float32)
    for number, decision in enumerate(decisions):
        index = decision.index[image]
        confidence_maps[number, index] = decision.confidence[image]
        keep_maps[number, index[decision.keep[image]]] = True
    return keep_maps, confidence_maps


@dataclass(frozen=True)
class ChainResult:
    """The result of one pass. There are fewer than D decisions if one of them kept no token."""

    labels: np.ndarray  # [B, H, W], as large as the images; [B, 0, 0] where they were not wanted
    logits: np.ndarray  # [B, C, h', w'] float32
    decisions: tuple[DecisionResult, ...]
    tensors: dict[str, np.ndarray]  # with `keep_tensors`: a copy of every tensor from one step to another


class Chain:
    """A bundle's steps and the memory between them. Thread-safe: each pass uses a workspace of its own."""

    def __init__(
        self,
        manifest: Manifest,
        engines: Sequence[Engine],
        steps: Sequence[ChainStep] | None = None,
        *,
        labels_apart: bool = False,
    ) -> None:
        """`steps`: one per engine; default the manifest's, otherwise those of a PlanSet. `labels_apart`: whether the engine that
        makes labels may be asked for its other outputs alone."""
        self.manifest = manifest
        self.steps = manifest.steps if steps is None else steps
        # where a pass continues after a decision that kept no token
        self._decoder = next(n for n, step in enumerate(self.steps) if step.step == self.steps[-1].step)
        self.engines = list(engines)
        self._labels_apart = labels_apart
        self._idle: queue.SimpleQueue[Workspace] = queue.SimpleQueue()

    def accepts_size(self, size: tuple[int, int]) -> bool:
        """Whether images of this height and width may be given as they are: those of the bundle's size."""
        return size == self.manifest.image_size

    def run(
        self,
        images: np.ndarray,
        thresholds: Sequence[float],
        capacities: Sequence[int],
        *,
        counts: Sequence[int] | None = None,
        logits: bool = True,
        labels: bool = True,
        keep_tensors: bool = False,
    ) -> ChainResult:
        """One pass over `images` [B, H, W, 3] uint8 of the bundle's size.

        The kept count of each decision is the smallest of `capacities` that holds the batch's largest: those of a schedule
        (`Session.capacities`). With `counts`, each decision keeps that many tokens of every image instead, those of lowest
        confidence; they must not rise. Without `logits` or `labels` a chain may leave these empty; this one always makes logits,
        and labels where they are not made apart.
        """
        # with ξ = 0 every token stops, and the single allowed capacity is filled with those of lowest confidence
        same = np.asarray(capacities, np.int64)
        allowed = [same] * len(thresholds) if counts is None else [np.array([count], np.int64) for count in counts]
        xi = thresholds if counts is None else [0.0] * len(counts)
        workspace = self._take(len(images))
        try:
            return self._run(workspace, images, xi, allowed, labels or not self._labels_apart, keep_tensors)
        finally:
            self._idle.put(workspace)

    def stream(
        self, images: Iterable[np.ndarray], thresholds: Sequence[float], logits: Callable[[], bool] = lambda: False
    ) -> Iterator[ChainResult]:
        """The results of `images`, each [B, H, W, 3] uint8 of the bundle's size, in their order, with the bundle's capacities.
        `logits` is asked before each whether its logits are wanted; here they are there anyway."""
        for batch in images:
            yield self.run(batch, thresholds, self.manifest.capacities, logits=logits())

    def _take(self, batch: int) -> Workspace:
        try:
            workspace = self._idle.get_nowait()
        except queue.Empty:
            return Workspace(self.manifest, self.steps, batch)
        return workspace if workspace.batch == batch else Workspace(self.manifest, self.steps, batch)

    def _run(
        self,
        workspace: Workspace,
        images: np.ndarray,
        thresholds: Sequence[float],
        capacities: Sequence[np.ndarray],
        labels: bool,
        keep_tensors: bool,
    ) -> ChainResult:
        manifest = self.manifest
        dims = {"batch": len(images)}
        tensors = {"image": np.ascontiguousarray(images), "stopped_count0": np.zeros(1, np.int64)}
        for decision, threshold in zip(manifest.decisions, thresholds, strict=True):
            tensors[decision.threshold] = np.asarray(threshold, np.float32)
        decisions = {decision.keep: decision for decision in manifest.decisions}
        decided: list[DecisionResult] = []
        copies: dict[str, np.ndarray] = {}
        before = manifest.tokens  # tokens that the next decision is made on

        number, ended = 0, False
        while number < len(self.steps):
            step = self.steps[number]
            last = number == len(self.steps) - 1
            deciding = next((decisions[spec.name] for spec in step.outputs if spec.name in decisions), None)
            if deciding:
                tensors["capacities"] = capacities[len(decided)]
            places: dict[str, np.ndarray | None] = {}
            wanted = [spec for spec in step.outputs if labels or spec.name != "labels"]
            for spec in wanted:
                if deciding and spec.name == deciding.keep:
                    places[spec.name] = None
                elif (
                    spec.name in RESULTS or ended
                ):  # results are the caller's; after an early end, slots hold what is read out of turn
                    places[spec.name] = np.empty(spec.resolve(dims), spec.dtype)
                else:
                    places[spec.name] = workspace.array(spec, dims)
            made = self.engines[number].run({spec.name: _tensor(tensors, spec.name) for spec in step.inputs}, places)
            for spec in wanted:
                if deciding and spec.name == deciding.keep:
                    check_keep(step.name, spec.name, made.get(spec.name), len(images), before)
                else:
                    check_made(step.name, spec.name, made.get(spec.name), spec.dtype, spec.resolve(dims))
            tensors |= made
            if keep_tensors and not last:
                copies |= {name: array.copy() for name, array in made.items()}
            number += 1
            if deciding:
                keep = tensors[deciding.keep]
                saw = (_tensor(tensors, deciding.confidence), _tensor(tensors, deciding.state.index))
                for name, values, dtype in zip(
                    (deciding.confidence, deciding.state.index), saw, ("float32", "int32"), strict=True
                ):
                    check_made(step.name, name, values, dtype, (len(images), before))
                check_ascending(deciding.state.index, saw[1], manifest.tokens)
                before = keep.shape[1]
                decided.append(DecisionResult(saw[0].copy(), saw[1].copy(), keep))
                dims |= kept_dims(manifest, len(decided), keep.shape[1])
                LOG.debug(
                    "step %s: decision %d keeps %d of %d tokens", step.name, len(decided), before, saw[0].shape[1]
                )
                if keep.shape[1] == 0:  # the backbone ends early: the decoder takes over what there is
                    tensors |= self._end_early(deciding, tensors)
                    number, ended = self._decoder, True
        if labels:
            check_labels(_tensor(tensors, "labels"), manifest.classes)
        made_labels = _tensor(tensors, "labels") if labels else np.empty((len(images), 0, 0), np.uint8)
        return ChainResult(made_labels, _tensor(tensors, "logits"), tuple(decided), copies)

    def _end_early(self, decision: DecisionSpec, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The decoder's inputs from the state before a decision that kept nothing: every token has its final value."""
        state, final = decision.state, self.manifest.final
        taken = {getattr(final, role): _tensor(tensors, getattr(state, role)) for role in State.model_fields}
        missing = [tap for tap in self.manifest.taps if tap not in tensors]
        if missing:
            full, index = _tensor(tensors, state.full).copy(), _tensor(tensors, state.index)
            tokens = _tensor(tensors, state.tokens)
            places = (len(index), self.manifest.tokens), (len(index), index.shape[1] + self.manifest.prefix)
            same = full.dtype == tokens.dtype and full.ndim == tokens.ndim == 3 and full.shape[2] == tokens.shape[2]
            if not same or (full.shape[:2], tokens.shape[:2]) != places:
                raise DovitError(f"tensors {state.full} and {state.tokens} do not fit together{REMEDY}")
            full[np.arange(len(full))[:, None], index] = tokens[:, self.manifest.prefix :]
            taken |= dict.fromkeys(missing, full)
        return taken


def _tensor(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    found = tensors.get(name)
    if found is None:
        raise DovitError(f"tensor {name} was not made; export the bundle again")
    return found
