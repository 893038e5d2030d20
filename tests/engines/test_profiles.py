import pytest
from hypothesis import given
from hypothesis import strategies as st

from dovit.engines.profiles import profile_shapes, split_profiles
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanStep, Profile
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.errors import UsageError


@given(st.integers(1, 3000), st.lists(st.integers(0, 3000), max_size=20), st.data())
def test_profiles_cover_every_count_once(tokens: int, capacities: list[int], data: st.DataObject) -> None:
    capacities = [c for c in capacities if c <= tokens]
    most = len({c for c in capacities if c} | {tokens})
    profiles = split_profiles(capacities, tokens, data.draw(st.integers(1, most)))
    covered = [n for p in profiles for n in range(p.least, p.most + 1)]
    assert covered == list(range(1, tokens + 1))
    assert all(p.best in {*capacities, tokens} for p in profiles)


def test_wrong_numbers_of_profiles() -> None:
    for count in (0, 4):
        with pytest.raises(UsageError, match="give 1 to 3"):
            split_profiles((0, 8, 16, 24), 24, count)


def test_shapes(small_manifest: Manifest) -> None:
    """A block after decision 2: all its sizes follow the profile; where it gathers by itself, more tokens come in."""
    specs = (
        TensorSpec(name="gathered2", dtype="float16", shape=(1, "length2", 64)),
        TensorSpec(name="fixed", dtype="float32", shape=(1, 64)),
    )
    block = PlanStep(name="block3", step="block3", kind="plan", inputs=specs, outputs=())
    shapes = profile_shapes(small_manifest, block, Profile(least=3, best=8, most=16))
    assert shapes == {"gathered2": ((1, 4, 64), (1, 9, 64), (1, 17, 64)), "fixed": ((1, 64),) * 3}
    wider = TensorSpec(name="tokens2", dtype="float16", shape=(1, "length1", 64))
    block = block.model_copy(update={"inputs": (*specs, wider)})
    shapes = profile_shapes(small_manifest, block, Profile(least=3, best=8, most=16))
    assert shapes["tokens2"] == ((1, 4, 64), (1, 9, 64), (1, 25, 64))
