"""The kernels that read logits: confidences, labels, and labels at another size, against float64."""

import pytest
import torch
import torch.nn.functional as F
from kernel_launches import SLOW, TYPES, Kernels, both, place, stream

from dovit.export.model.token_pass import confidence


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [1, 2, 19, 128, 129, 150, 1000])
@pytest.mark.parametrize("count", [1, 33, 989])
def test_confidence(kernels: Kernels, dtype: torch.dtype, classes: int, count: int) -> None:
    logits = (5 * torch.randn(2, classes, count)).to(dtype)
    if count > 3:
        logits[0, classes // 2, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype)
    there, out = logits.to(kernels.device), torch.full((2, count), -7.0, device=kernels.device)
    status = kernels.dovit_confidence(TYPES[dtype], place(there), place(out), 2, classes, count, stream(kernels))
    assert status == 0
    expected = logits.double().softmax(dim=1).amax(dim=1).float()
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-5, atol=0, equal_nan=True)
    assert torch.equal(confidence(logits).isnan(), out.cpu().isnan())


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [2, 19, 300])
@pytest.mark.parametrize(("size", "scale"), [((32, 64), 8), ((64, 96), 4), ((7, 5), 3), ((1, 1), 16), ((3, 300), 1)])
@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_labels(
    kernels: Kernels, dtype: torch.dtype, classes: int, size: tuple[int, int], scale: int, kind: str
) -> None:
    if kernels.device == "cpu" and (size == (64, 96) or (classes == 300 and dtype != torch.float16)):
        pytest.skip(SLOW)
    shape = size if kind == "random" else (3, 4)
    logits = F.interpolate(torch.randn(2, classes, *shape), size=size, mode="bicubic").to(dtype).to(kernels.device)
    labels = torch.full(
        (2, size[0] * scale, size[1] * scale),
        77,
        dtype=torch.uint8 if classes <= 256 else torch.int16,
        device=kernels.device,
    )
    status = kernels.dovit_labels(TYPES[dtype], place(logits), place(labels), 2, classes, *size, scale, stream(kernels))
    assert status == 0
    assert_largest(labels, logits)


def assert_largest(labels: torch.Tensor, logits: torch.Tensor) -> None:
    """Each label [B, H, W] is of a class whose logit [B, C, h, w] is the largest there."""
    wide = F.interpolate(logits.double(), size=labels.shape[1:], mode="bilinear")
    chosen = wide.gather(1, labels.long()[:, None])[:, 0]
    assert float((wide.amax(dim=1) - chosen).max()) < 1e-5


@both
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("classes", [2, 19, 300])
@pytest.mark.parametrize(
    ("size", "wanted"), [((7, 5), (40, 300)), ((32, 64), (9, 131)), ((12, 20), (48, 80)), ((1, 1), (3, 2))]
)
def test_resized_labels(
    kernels: Kernels, dtype: torch.dtype, classes: int, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """Larger, smaller, and by a whole number; nothing is written beyond the labels."""
    logits = torch.randn(2, classes, *size).to(dtype).to(kernels.device)
    count = 2 * wanted[0] * wanted[1]
    made = torch.full((count + 64,), 77, dtype=torch.uint8 if classes <= 256 else torch.int16, device=kernels.device)
    status = kernels.dovit_resized_labels(
        TYPES[dtype], place(logits), place(made), 2, classes, *size, *wanted, stream(kernels)
    )
    assert status == 0 and bool((made[count:] == 77).all())
    assert_largest(made[:count].view(2, *wanted), logits)
