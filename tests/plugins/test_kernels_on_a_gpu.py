"""The kernels on a GPU against the definition in torch: fresh inputs, poisoned outputs. Skipped where there is none."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dovit.export.model.token_pass import TokenState, confidence, decide, gather, reconstruct

pytestmark = pytest.mark.gpu
KERNELS = Path(__file__).parents[2] / "plugins" / "kernels"
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    out = tmp_path_factory.mktemp("kernels") / "libkernels.so"
    sources = [str(path) for path in sorted([*KERNELS.glob("*.cu"), *KERNELS.glob("*.cpp")])]
    options = ["-std=c++17", "-O3", "-arch=native", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    subprocess.run([nvcc, *options, *sources, "-o", str(out)], check=True)
    library = ctypes.CDLL(str(out))
    library.dovit_gather_scratch_bytes.restype = ctypes.c_size_t
    return library


def place(tensor: Tensor | None) -> ctypes.c_void_p:
    assert tensor is None or (tensor.is_cuda and tensor.is_contiguous())
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def stream() -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def decided(kernels: ctypes.CDLL, q: Tensor, threshold: float, capacities: list[int]) -> tuple[Tensor, Tensor]:
    batch, count = q.shape
    ints = {"dtype": torch.int32, "device": "cuda"}
    staying, capacity = torch.full((batch,), -7, **ints), torch.full((1,), -7, **ints)
    keep, slots = torch.full((batch, count), -7, **ints), torch.full((batch, count), -7, **ints)
    allowed, xi = torch.tensor(sorted(capacities), **ints), torch.tensor([threshold], device="cuda")
    status = kernels.dovit_decide(
        place(q), place(xi), place(allowed), len(allowed), batch, count, place(staying), place(capacity), place(keep),
        place(slots), stream(),
    )  # fmt: skip
    assert status == 0
    chosen = int(capacity)
    assert bool((keep[:, chosen:] == -7).all())
    return keep[:, :chosen], slots


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 111, 989, 1024, 8192, 65536])
def test_decide(kernels: ctypes.CDLL, count: int) -> None:
    """Identical to the CPU's, ties, NaN and zeros of both signs included; 1,000 cases of every size up to 1,024."""
    noise = torch.Generator().manual_seed(count)
    for case in range(1000 if count <= 1024 else 20):
        q = torch.rand(1 + case % 3, count, generator=noise)
        if case % 4 == 1:
            q = (q * 8).round() / 8
        elif case % 4 == 2:
            q[torch.rand(q.shape, generator=noise) < 0.2] = torch.nan
        elif case % 4 == 3:
            q = torch.where(q < 0.5, -0.0, 0.0)
        threshold = [0.5, 0.0, 0.9, 1.0, -1.0][case % 5]
        capacities = sorted({0, count // 4, count // 2, count})
        keep, slots = decided(kernels, q.cuda(), threshold, capacities)
        expected = decide(q, threshold, capacities)
        assert torch.equal(keep.cpu().long(), expected)
        assert torch.equal((slots >= 0).sum(dim=1).cpu(), torch.full((len(q),), expected.shape[1]))


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize(("count", "capacity"), [(1, 0), (33, 33), (111, 64), (989, 400), (8192, 3000)])
@pytest.mark.parametrize("channels", [7, 384, 1024])
def test_gather_and_reconstruct(
    kernels: ctypes.CDLL, dtype: torch.dtype, count: int, capacity: int, channels: int
) -> None:
    batch, prefix, positions = 2, 1, 2 * count
    noise = torch.Generator().manual_seed(count)
    rows = [torch.randperm(positions, generator=noise)[:count].sort().values for _ in range(batch)]
    before = TokenState(
        torch.randn(batch, prefix + count, channels, generator=noise).to(dtype).cuda(),
        torch.stack(rows).to(torch.int32).cuda(),
        torch.randn(batch, positions, channels, generator=noise).to(dtype).cuda(),
        torch.randn(batch, channels, generator=noise).cuda(),
        positions - count,
    )
    q = torch.rand(batch, count, generator=noise).cuda()
    keep, slots = decided(kernels, q, -1.0, [capacity, count])
    expected = gather(before, keep.long(), prefix)
    results = []
    for _ in range(2):
        full = before.full.clone()
        kept = torch.full((batch, prefix + capacity, channels), torch.nan, dtype=dtype, device="cuda")
        kept_index = torch.full((batch, capacity), -7, dtype=torch.int32, device="cuda")
        after = torch.full((batch, channels), torch.nan, device="cuda")
        scratch = torch.full(
            (kernels.dovit_gather_scratch_bytes(batch, count, channels),), 255, dtype=torch.uint8
        ).cuda()
        status = kernels.dovit_gather(
            TYPES[dtype], place(before.tokens), place(before.index), place(slots), place(kept), place(kept_index),
            place(full), place(before.stopped_sum), place(after), expected.stopped_count, batch, count, capacity, prefix,
            positions, channels, place(scratch), stream(),
        )  # fmt: skip
        assert status == 0
        results.append((kept, kept_index, full, after))
    kept, kept_index, full, after = results[0]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), "not the same every time"
    assert torch.equal(kept[:, prefix:], expected.tokens[:, prefix:]) and torch.equal(kept_index, expected.index)
    torch.testing.assert_close(after, expected.stopped_sum, rtol=1e-4, atol=1e-3)
    tolerance = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(kept[:, :prefix], expected.tokens[:, :prefix], rtol=tolerance, atol=tolerance)
    state = TokenState(kept, kept_index, full, after, expected.stopped_count)
    whole = full.clone()
    status = kernels.dovit_reconstruct(
        TYPES[dtype],
        place(kept),
        place(kept_index),
        place(whole),
        batch,
        capacity,
        prefix,
        positions,
        channels,
        stream(),
    )
    assert status == 0
    assert torch.equal(whole, reconstruct(state, prefix)) and torch.equal(whole, reconstruct(before, prefix))


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [2, 19, 150, 1000])
def test_confidence(kernels: ctypes.CDLL, dtype: torch.dtype, classes: int) -> None:
    logits = (5 * torch.randn(2, classes, 989)).to(dtype).cuda()
    out = torch.full((2, 989), torch.nan, device="cuda")
    assert kernels.dovit_confidence(TYPES[dtype], place(logits), place(out), 2, classes, 989, stream()) == 0
    torch.testing.assert_close(out, confidence(logits.double()).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [19, 300])
def test_labels(kernels: ctypes.CDLL, dtype: torch.dtype, classes: int) -> None:
    logits = torch.randn(2, classes, 32, 64).to(dtype).cuda()
    out = torch.full((2, 256, 512), 77, dtype=torch.uint8 if classes <= 256 else torch.int16, device="cuda")
    assert kernels.dovit_labels(TYPES[dtype], place(logits), place(out), 2, classes, 32, 64, 8, stream()) == 0
    wide = F.interpolate(logits.double(), scale_factor=8, mode="bilinear")
    chosen = wide.gather(1, out.long()[:, None])[:, 0]
    assert float((wide.amax(dim=1) - chosen).max()) < 1e-5
