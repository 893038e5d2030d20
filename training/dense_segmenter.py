"""A bundle's model without decisions, as one graph on the same provider: what the speed of token pass is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from dovit.evaluation.segmenter import BundleSegmenter
from dovit.export.graph.dense import dense_bundle
from dovit.runtime.bundle.manifest import Mode
from dovit.runtime.bundle.open import open_bundle
from dovit.runtime.openvino.device import CpuPrecision
from dovit.runtime.providers import Provider, open_cpu_chain
from dovit.runtime.session import Session


@contextmanager
def dense_segmenter(engine: Path, session: Session, mode: Mode, threads: int | None) -> Iterator[BundleSegmenter]:
    """Of the bundle in the folder `engine`, with provider and precision of its `session`, which runs on a CPU.

    Its files lie in a temporary folder until the end. Raises DovitError for a bundle without ONNX files.
    """
    with TemporaryDirectory(prefix="dovit-dense-") as folder:
        dense = dense_bundle(open_bundle(engine), Path(folder))
        chain, provider = open_cpu_chain(
            dense,
            cast(Provider, session.provider),
            cast(CpuPrecision, session.precision),
            threads=threads,
            low_memory=False,
            check_accuracy=False,  # the bundle's own has been checked
            cache=None,
        )
        with Session(dense.manifest, chain, "onnxruntime", provider=provider, precision=session.precision) as opened:
            yield BundleSegmenter(opened, mode)
