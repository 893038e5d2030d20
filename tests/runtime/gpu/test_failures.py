"""A GPU that fails at any call: one error, after which the session refuses work."""

from __future__ import annotations

import pytest
from fake_gpu import (
    FakeDevice,
    FakeGraph,
    FakeStream,
)
from lowered import CAPACITIES, Maker, same
from models import random_images

from dovit.runtime.errors import DovitError


@pytest.mark.parametrize("where", ["launch", "sync", "copy"])
def test_an_error_in_flight_ends_the_session(make: Maker, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sentence, and immediately the next time: CUDA errors are sticky."""
    made = make()
    chain = made.gpu_chain()
    image = random_images(made.model.config).numpy()
    good = chain.run(image, (0.5, 0.5), CAPACITIES)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access\nand more lines")

    target = {"launch": (FakeGraph, "launch"), "sync": (FakeStream, "sync"), "copy": (FakeDevice, "copy")}[where]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        capacities = CAPACITIES if where != "copy" else range(25)  # captured copies are not asked for again
        with pytest.raises(
            DovitError,
            match=r"^the GPU failed: CUDA_ERROR_ILLEGAL_ADDRESS: .* access; the session refuses further work",
        ):
            chain.run(image, (0.5, 0.5), capacities)
    with pytest.raises(
        DovitError, match=r"the session refuses work after an error \(the GPU failed: .*\): load the bundle again"
    ):
        chain.run(image, (0.5, 0.5), CAPACITIES)
    fresh = made.gpu_chain()
    same(fresh.run(image, (0.5, 0.5), CAPACITIES), good)


@pytest.mark.parametrize("graph", [True, False])
def test_a_failure_at_any_step_of_loading_is_one_sentence(
    make: Maker, graph: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The n-th call of the device fails, for every n: no other error, no hang, no capture left open."""
    made, counting = make(), FakeDevice()
    made.gpu_chain(counting, graph=graph)
    for number in range(1, counting.asked + 1):
        device = FakeDevice(fails_at=number)
        try:
            made.gpu_chain(device, graph=graph)
        except DovitError as error:
            assert "CUDA refuses" in str(error)
        else:  # a plan's trial, and so that plan is queued instead
            assert not graph and "CUDA refuses" in caplog.text, number
        assert not device.building
        caplog.clear()
