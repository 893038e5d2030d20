"""The kernels of dovit_kernels.h on the fake GPU: written from the design, in numpy, or their own sources on emulated threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
import torch.nn.functional as F

from dovit.plugins.launch import Kernels
from dovit.runtime.resize import resize_image
from fake_gpu.device import FakeDevice, array
from fake_gpu.graphs import KernelNode


class FakeKernels:
    """Decide, gather and reconstruct as the design defines them, one image after the other."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def gather_scratch_bytes(self, batch: int, count: int, channels: int) -> int:
        return 4 * batch * channels

    def decide(
        self,
        confidence: int,
        threshold: int,
        capacities: int,
        capacity_count: int,
        batch: int,
        count: int,
        staying: int,
        keep: int,
        slots: int,
        capacity: int,
        switch: int,
        stream: int,
    ) -> None:
        def work() -> None:
            q = array(confidence, (batch, count), np.float32)
            xi = array(threshold, (1,), np.float32)[0]
            stays = ~(q > xi)
            largest = int(stays.sum(axis=1).max())
            allowed = array(capacities, (capacity_count,), np.int64).tolist()
            chosen = min((c for c in allowed if c >= largest), default=largest)
            array(staying, (batch,), np.int32)[:] = stays.sum(axis=1)
            array(capacity, (1,), np.int32)[:] = chosen
            for image in range(batch):
                rank = np.where(stays[image], -np.inf, q[image])
                kept = np.sort(np.argsort(rank, kind="stable")[:chosen])
                array(keep, (batch, chosen), np.int32)[image] = kept
                row = array(slots, (batch, count), np.int32)[image]
                row[:] = -1
                row[kept] = np.arange(chosen)
            if switch:
                array(switch, (1,), np.uint32)[0] = allowed.index(chosen)

        self.device.submit(stream, KernelNode(work))

    def gather(
        self,
        element: str,
        tokens: int,
        index: int,
        slots: int,
        kept: int,
        kept_index: int,
        full: int,
        sum_before: int,
        sum_after: int,
        stopped_before: int,
        stopped_after: int,
        actual_count: int,
        batch: int,
        count: int,
        capacity: int,
        prefix: int,
        positions: int,
        channels: int,
        cell_side: int,
        columns: int,
        scratch: int,
        stream: int,
    ) -> None:
        def work() -> None:
            held = int(array(actual_count, (1,), np.int32)[0]) if actual_count else count
            assert capacity <= held <= positions
            before = array(tokens, (batch, prefix + held, channels), element)
            where = array(index, (batch, held), np.int32)
            slot = array(slots, (batch, held), np.int32)
            after = array(kept, (batch, prefix + capacity, channels), element)
            stopped = int(array(stopped_before, (1,), np.int64)[0]) + held - capacity
            array(stopped_after, (1,), np.int64)[:] = stopped
            for image in range(batch):
                stays = slot[image] >= 0
                after[image, prefix:] = before[image, prefix:][stays]
                array(kept_index, (batch, capacity), np.int32)[image] = where[image][stays]
                gone = before[image, prefix:][~stays]
                array(full, (batch, positions, channels), element)[image, where[image][~stays]] = gone
                after[image, :prefix] = before[image, :prefix]
                if cell_side:
                    cells = _merged_by_cell(
                        before[image], where[image], stays, (positions // columns, columns), cell_side
                    )
                    after[image, prefix - len(cells) : prefix] = cells
                if not sum_before:  # no merging into the class token
                    continue
                total = array(sum_before, (batch, channels), np.float32)[image] + gone.astype(np.float32).sum(axis=0)
                array(sum_after, (batch, channels), np.float32)[image] = total
                if prefix and stopped:
                    after[image, 0] = 0.5 * (before[image, 0].astype(np.float32) + total / stopped)

        self.device.submit(stream, KernelNode(work))

    def reconstruct(
        self,
        element: str,
        tokens: int,
        index: int,
        full: int,
        batch: int,
        count: int,
        prefix: int,
        positions: int,
        channels: int,
        stream: int,
    ) -> None:
        def work() -> None:
            for image in range(batch):
                where = array(index, (batch, count), np.int32)[image]
                values = array(tokens, (batch, prefix + count, channels), element)[image, prefix:]
                array(full, (batch, positions, channels), element)[image, where] = values

        self.device.submit(stream, KernelNode(work))

    def labels(
        self,
        element: str,
        logits: int,
        labels: int,
        batch: int,
        classes: int,
        height: int,
        width: int,
        scale: int,
        stream: int,
    ) -> None:
        self.resized_labels(
            element, logits, labels, batch, classes, height, width, height * scale, width * scale, stream
        )

    def resized_labels(
        self,
        element: str,
        logits: int,
        labels: int,
        batch: int,
        classes: int,
        height: int,
        width: int,
        out_height: int,
        out_width: int,
        stream: int,
    ) -> None:
        def work() -> None:
            given = torch.from_numpy(array(logits, (batch, classes, height, width), element).astype(np.float64))
            large = F.interpolate(given, size=(out_height, out_width), mode="bilinear")
            made = array(labels, (batch, out_height, out_width), np.uint8 if classes <= 256 else np.int16)
            made[...] = large.argmax(dim=1).numpy()

        self.device.submit(stream, KernelNode(work))

    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]:
        """In place of interpolation weights, the sizes: `resize` checks that it gets the right ones."""
        return np.array([source, target], np.int32), 7

    def resize(
        self,
        image: int,
        height: int,
        width: int,
        out: int,
        out_height: int,
        out_width: int,
        across: int,
        across_width: int,
        down: int,
        down_width: int,
        scratch: int,
        stream: int,
    ) -> None:
        def work() -> None:
            assert array(across, (2,), np.int32).tolist() == [width, out_width] and across_width == 7
            assert array(down, (2,), np.int32).tolist() == [height, out_height] and down_width == 7
            array(scratch, (3 * max(height * out_width, out_height * width),), np.uint8)[:] = 0xEE
            made = resize_image(array(image, (height, width, 3), np.uint8), (out_height, out_width))
            array(out, (out_height, out_width, 3), np.uint8)[...] = made

        self.device.submit(stream, KernelNode(work))


class EmulatedKernels:
    """The kernels' sources on emulated threads, queued and captured like the numpy ones."""

    def __init__(self, device: FakeDevice, library: ctypes.CDLL) -> None:
        self.device, self.kernels = device, Kernels(library)

    def gather_scratch_bytes(self, batch: int, count: int, channels: int) -> int:
        return self.kernels.gather_scratch_bytes(batch, count, channels)

    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]:
        return self.kernels.resize_taps(source, target)

    def __getattr__(self, name: str) -> Callable[..., None]:
        launch = getattr(self.kernels, name)

        @wraps(launch)  # whose last argument is the stream
        def queued(*arguments: int) -> None:
            self.device.submit(arguments[-1], KernelNode(lambda: launch(*arguments[:-1], 0)))

        return queued


def _merged_by_cell(
    tokens: np.ndarray, index: np.ndarray, stays: np.ndarray, grid: tuple[int, int], side: int
) -> np.ndarray:
    """The merged tokens [G, E] of an image's tokens [P+M, E], of which `stays` [M] says what is left."""
    corners = [(row, column) for row in range(0, grid[0], side) for column in range(0, grid[1], side)]
    prefix = len(tokens) - len(index)
    merged = tokens[prefix - len(corners) : prefix].astype(np.float32)
    patches = tokens[prefix:].astype(np.float32)
    for cell, (row, column) in enumerate(corners):
        rows, columns = index // grid[1], index % grid[1]
        inside = (row <= rows) & (rows < row + side) & (column <= columns) & (columns < column + side)
        size = (min(row + side, grid[0]) - row) * (min(column + side, grid[1]) - column)
        before, stopping = size - int(inside.sum()), inside & ~stays
        total = before * merged[cell] + patches[stopping].sum(axis=0)
        merged[cell] = total / max(before + int(stopping.sum()), 1)
    return merged
