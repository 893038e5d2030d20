"""Sessions on a GPU give what they give on a CPU, call by call and streaming."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from lowered import Lowered, Maker

from dovit.runtime.bundle.manifest import Mode, Schedule
from dovit.runtime.errors import UsageError
from dovit.runtime.session import Session


def one_session(made: Lowered, where: str) -> Session:
    if where == "cpu":
        return Session(made.manifest, made.chain, "onnxruntime", "bucketed")
    return Session(made.manifest, made.gpu_chain(), "tensorrt-rtx", "bucketed")


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_sessions_agree(make: Maker, mode: Mode) -> None:
    """The same calls, the same results, for images of the bundle's size and of others, which want logits; bucketed by default."""
    made = make("setr-pup")
    chain = made.gpu_chain()
    on_gpu = Session(made.manifest, chain, "tensorrt-rtx", "bucketed")
    on_cpu = Session(made.manifest, made.chain, "onnxruntime")
    noise = np.random.default_rng(0)
    for size in (made.manifest.image_size, (100, 130)):
        image = noise.integers(0, 256, (*size, 3), np.uint8)
        for return_logits in (False, True):
            found = on_gpu(image, mode=mode, threshold=0.7, return_logits=return_logits)
            expected = on_cpu(image, mode=mode, threshold=0.7, schedule="bucketed", return_logits=return_logits)
            assert found.kept == expected.kept and np.array_equal(found.keep_maps, expected.keep_maps)
            assert (found.labels == expected.labels).mean() > 0.999
            assert (found.logits is None) == (not return_logits)
            if found.logits is not None and expected.logits is not None:
                np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("return_logits", [True, False])
@pytest.mark.parametrize(("mode", "schedule"), [("whole", None), ("whole", "exact"), ("slide", None)])
@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_a_session_streams(make: Maker, where: str, mode: Mode, schedule: Schedule | None, return_logits: bool) -> None:
    """The same as call by call, images of the bundle's size and of others in turns."""
    made = make()
    session, alone = one_session(made, where), one_session(made, where)
    noise = np.random.default_rng(1)
    sizes = [made.manifest.image_size, (100, 130), made.manifest.image_size, (70, 101), (64, 200)]
    images = [noise.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number, image in enumerate(images):
            taken.append(number)
            yield image

    found = session.stream(camera(), mode=mode, threshold=0.7, schedule=schedule, return_logits=return_logits)
    assert not taken
    for number, (result, image) in enumerate(zip(found, images, strict=True)):
        assert len(taken) <= number + 3, "images are taken as they are needed"
        expected = alone(image, mode=mode, threshold=0.7, schedule=schedule, return_logits=return_logits)
        assert result.kept == expected.kept and np.array_equal(result.labels, expected.labels)
        assert result.labels.shape == image.shape[:2]
        if expected.logits is None:
            assert result.logits is None
        else:
            assert result.logits is not None and np.array_equal(result.logits, expected.logits)
    assert number == len(images) - 1
    with pytest.raises(UsageError, match="lies outside"):
        session.stream(images, threshold=2)
