"""Plan sets of random chains, without a model: any number of decisions, heads on tokens or on the map, taps anywhere."""

from __future__ import annotations

from hypothesis import strategies as st

from dovit.runtime.bundle.manifest import DecisionSpec, Manifest, State
from dovit.runtime.bundle.plans import PlanStep
from dovit.runtime.bundle.tensors import DType, TensorSpec

CHANNELS = 8


def spec(name: str, dtype: DType, *shape: int | str) -> TensorSpec:
    """A TensorSpec."""
    return TensorSpec(name=name, dtype=dtype, shape=shape)


class Chain:
    """`steps` for `batch` images, and the decisions and taps of their manifest."""

    def __init__(self, manifest: Manifest, draw: st.DrawFn) -> None:
        self.batch = draw(st.integers(1, 3))
        self._draw, self._tokens = draw, manifest.tokens
        self._element: DType = draw(st.sampled_from(["float32", "float16", "bfloat16"]))
        self.taps: list[str] = []
        self.steps: list[PlanStep] = []
        prefix, decisions = draw(st.integers(0, 2)), draw(st.integers(0, 4))
        self._prefix = prefix
        for number in range(decisions + 1):
            self._block(number, decides=number < decisions)
        self._decoder(decisions)
        self.manifest = manifest.model_copy(
            update={
                "prefix": prefix,
                "embed_dim": CHANNELS,
                "thresholds": (0.5,) * decisions,
                "taps": tuple(self.taps),
                "final": self._names(decisions),
                "decisions": tuple(
                    DecisionSpec(
                        layer=n + 1,
                        state=self._names(n),
                        threshold=f"xi{n + 1}",
                        confidence=f"confidence{n + 1}",
                        keep=f"keep{n + 1}",
                    )
                    for n in range(decisions)
                ),
            }
        )

    def _names(self, number: int) -> State:
        return State(tokens=f"tokens{number + 1}", index=f"index{number}", full=f"full{number}")

    def _kept(self, number: int) -> int | str:
        return f"kept{number}" if number else self._tokens

    def _sequence(self, name: str, number: int) -> TensorSpec:
        length = f"length{number}" if number else self._tokens + self._prefix
        return spec(name, self._element, self.batch, length, CHANNELS)

    def _full(self, name: str) -> TensorSpec:
        return spec(name, self._element, self.batch, self._tokens, CHANNELS)

    def _index(self, number: int) -> TensorSpec:
        return spec(f"index{number}", "int32", self.batch, self._kept(number))

    def _sums(self, number: int) -> list[TensorSpec]:
        return [
            spec(f"sum{number}", "float32", self.batch, CHANNELS),
            spec(f"stopped_count{number}", "int64", 1),
        ]

    def _add(self, name: str, kind: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
        described = {"name": name, "step": name, "kind": kind, "inputs": inputs, "outputs": outputs}
        self.steps.append(PlanStep.model_validate(described))

    def _block(self, number: int, *, decides: bool) -> None:
        made = [self._sequence(f"tokens{number + 1}", number)]
        tapped = self._draw(st.booleans())
        if tapped:
            made.append(self._sequence(f"layer{number}", number))
        on_map = decides and self._draw(st.booleans())
        confidence = spec(f"confidence{number + 1}", "float32", self.batch, self._kept(number))
        if decides and not on_map:
            made.append(confidence)
        if number:
            before = [self._sequence(f"tokens{number}", number - 1), self._index(number - 1)]
            before += [self._full(f"full{number - 1}"), *self._sums(number - 1)]
            keep = spec(f"keep{number}", "int32", self.batch, f"kept{number}")
            after = [self._sequence(f"gathered{number}", number), self._index(number), self._full(f"full{number}")]
            if decides:
                after += self._sums(number)
            self._add(f"gather{number}", "gather", [*before, keep], after)
            self._add(f"block{number}", "plan", [after[0]], made)
        else:
            image = spec("image", "uint8", self.batch, 64, 96, 3)
            self._add("stem", "plan", [image], [self._full("full0"), self._index(0), self._sums(0)[0], *made])
        for name, on in ((f"tap{number}", tapped), (f"map{number}", on_map)):
            if on:
                if name.startswith("tap"):
                    self.taps.append(name)
                tokens = made[1] if name.startswith("tap") else made[0]
                inputs = [self._full(f"full{number}"), tokens, self._index(number)]
                self._add(f"{name}/reconstruct", "reconstruct", inputs, [self._full(name)])
        if on_map:
            self._add(f"head{number}", "plan", [self._index(number), self._full(f"map{number}")], [confidence])
        if decides:
            inputs = [confidence, spec(f"xi{number + 1}", "float32"), spec("capacities", "int64", "capacities")]
            keep = spec(f"keep{number + 1}", "int32", self.batch, f"kept{number + 1}")
            self._add(f"decide{number + 1}", "decide", inputs, [keep])

    def _decoder(self, number: int) -> None:
        inputs = [self._full(f"full{number}"), self._sequence(f"tokens{number + 1}", number), self._index(number)]
        self._add("sequence/reconstruct", "reconstruct", inputs, [self._full("sequence")])
        logits = spec("logits", "float32", self.batch, 5, 16, 24)
        decoder = [*(self._full(tap) for tap in self.taps), self._full("sequence")]
        self._add("decoder", "plan", decoder, [logits])
        self._add("labels", "labels", [logits], [spec("labels", "uint8", self.batch, 64, 96)])
