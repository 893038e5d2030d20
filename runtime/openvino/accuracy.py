"""What bf16 costs a bundle on this CPU: measured when it is first loaded so, and kept in the user's cache folder.

Drawn scenes and noise are run in float32 and in bf16, at the bundle's ξ and with every token kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.errors import DovitError
from dovit.runtime.openvino.device import cache_folder
from dovit.scenes import scene

LOG = logging.getLogger("dovit")
MIN_LABELS_EQUAL = 0.97
MIN_SAME_FATE = 0.95
SCENES = (3_000_000, 3_000_001)  # apart from those that models are trained and evaluated on


class Bf16Accuracy(Frozen):
    """`labels_equal`: share of the labels that are float32's, the worse of both settings; `same_fate`: share of the tokens that
    stop at the same decision, or at none, as in float32."""

    labels_equal: float = Field(ge=0, le=1)
    same_fate: float = Field(ge=0, le=1)

    def check(self, bundle: Path) -> None:
        """Raises DovitError where a share is below its bound."""
        if self.labels_equal < MIN_LABELS_EQUAL or self.same_fate < MIN_SAME_FATE:
            raise DovitError(
                f"{bundle}: bf16 is too far from float32 for this model: {self.labels_equal:.1%} of the labels are equal (at "
                f"least {MIN_LABELS_EQUAL:.0%}) and {self.same_fate:.1%} of the tokens stop at the same decision (at least "
                f"{MIN_SAME_FATE:.0%}): use precision fp32, or check_accuracy=False (--no-check-accuracy) to have it all the same"
            )


def known_accuracy(bundle: Bundle, chain: Chain, float32: Callable[[], Chain]) -> Bf16Accuracy:
    """Of `chain`, which runs `bundle` in bf16: from an earlier load, or measured now against the chain that `float32` loads."""
    file = cache_folder() / f"bf16-{_key(bundle)}.json"
    try:
        return Bf16Accuracy.model_validate_json(file.read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as error:
        LOG.debug("%s: cannot be used, measuring again (%s)", file, error)
    LOG.info("%s: comparing bf16 with float32, once for this bundle and CPU", bundle.root)
    found = measure(chain, float32())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found.model_dump_json())
    except OSError as error:
        LOG.debug("%s: cannot be written, so the next load measures again (%s)", file, error)
    return found


def measure(chain: Chain, reference: Chain) -> Bf16Accuracy:
    """Compare `chain` with `reference` on two drawn scenes and on noise."""
    manifest = chain.manifest
    height, width = manifest.image_size
    images = [scene(number, height, width)[0] for number in SCENES]
    images.append(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    everything = [manifest.tokens] * len(manifest.decisions)
    equal: dict[bool, list[float]] = {}
    fates = []
    for image in images:
        for keep_all in (False, True):
            made, expected = (
                one.run(
                    image[None],
                    manifest.thresholds,
                    range(manifest.tokens + 1),
                    counts=everything if keep_all else None,
                )
                for one in (chain, reference)
            )
            equal.setdefault(keep_all, []).append(float((made.labels == expected.labels).mean()))
            if not keep_all:
                fates.append(float((_fates(made, manifest.tokens) == _fates(expected, manifest.tokens)).mean()))
    return Bf16Accuracy(
        labels_equal=min(float(np.mean(shares)) for shares in equal.values()), same_fate=float(np.mean(fates))
    )


def _fates(result: ChainResult, tokens: int) -> np.ndarray:
    """[B, N]: after how many decisions each token was still kept."""
    fates = np.zeros((len(result.labels), tokens), np.int64)
    for decision in result.decisions:
        kept = np.take_along_axis(decision.index, decision.keep, axis=1)
        np.put_along_axis(fates, kept, np.take_along_axis(fates, kept, axis=1) + 1, axis=1)
    return fates


def _key(bundle: Bundle) -> str:
    """Of all that the figures depend on: files, ξ, OpenVINO, the processor, and this module."""
    manifest = bundle.manifest
    files = [manifest.files[name].sha256 for step in manifest.steps for name in step.openvino]
    weights = sorted(entry.sha256 for name, entry in manifest.files.items() if name.endswith(".weights"))
    own = resources.files("dovit.runtime").joinpath("openvino/accuracy.py").read_bytes()
    about = [files, weights, manifest.thresholds, version("openvino"), _processor(), hashlib.sha256(own).hexdigest()]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
