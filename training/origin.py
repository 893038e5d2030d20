"""What a run began with, by content: its checkpoints and its data. A run goes on with the same ones only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from dovit.evaluation.data import IGNORE, Dataset
from dovit.evaluation.data.pairs import Pairs
from dovit.evaluation.data.streets import Streets
from dovit.export.checkpoints.huggingface import find_weights
from dovit.export.model.config import Part
from dovit.runtime.errors import DovitError
from dovit.runtime.files import check_regular

SAMPLES = 8  # images, with their labels, that stand for a data set


class Weights(Part):
    """A file or folder that `--ckpt`, `--head` or `--teacher` names."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Weights:
        """Raises DovitError where it cannot be read."""
        files = find_weights(path) if path.is_dir() else [path]
        return cls(path=str(path), sha256=_sha256(files))


class Data(Part):
    """A data set: the names of its files, or the scenes', some of the files' contents, and whether label 0 is ignored."""

    spec: str
    names: str
    samples: tuple[str, ...] = ()
    zero_ignored: bool = False

    @classmethod
    def of(cls, dataset: Dataset, spec: str) -> Data:
        """Raises DovitError where a file cannot be read."""
        if isinstance(dataset, Streets):
            return cls(spec=spec, names=f"{dataset.count} scenes from {dataset.first}")
        assert isinstance(dataset, Pairs)
        pairs = dataset.pairs
        files = [str(file) for pair in pairs for file in (pair.image, pair.labels)]
        root = os.path.commonpath(files)  # data may lie elsewhere when a run goes on
        names = hashlib.sha256(b"\0".join(os.fsencode(os.path.relpath(file, root)) for file in files))
        chosen = sorted({len(pairs) * number // SAMPLES for number in range(SAMPLES)})
        samples = tuple(_sha256([pairs[number].image, pairs[number].labels]) for number in chosen)
        table = pairs[0].table
        zero_ignored = table is not None and int(table[0]) == IGNORE
        return cls(spec=spec, names=names.hexdigest(), samples=samples, zero_ignored=zero_ignored)

    def is_as(self, other: Data) -> bool:
        """Whether both are one data set. Some files may have been corrected meanwhile: half of those looked at, or one."""
        if self.names != other.names or len(self.samples) != len(other.samples):
            return False
        changed = sum(one != two for one, two in zip(self.samples, other.samples, strict=True))
        return changed <= max(1, len(self.samples) // 2)


class Origin(Part):
    """All of them; `weights` by the option that names them. `processes`: of torchrun, whose batches are joined."""

    weights: dict[str, Weights]
    data: Data
    processes: int = 1

    def difference(self, before: Origin) -> str | None:
        """The first thing that is another one than `before`, as what a run is "of a run with"; None where there is none."""
        for option in sorted(self.weights.keys() | before.weights.keys()):
            now, then = self._weights(option), before._weights(option)
            if now is None or then is None:
                return (
                    f"no {option}, and not {now.path}"
                    if now
                    else f"{option} {then.path if then else ''}, and not without"
                )
            if now.sha256 != then.sha256:
                return _another(option, then.path, now.path)
        if self.processes != before.processes:
            return f"{before.processes} process{'es' * (before.processes > 1)}, and not {self.processes}"
        if self.data.zero_ignored != before.data.zero_ignored:
            how = "label 0 ignored", "label 0 as a class"
            return "{}, and not {} (--reduce-zero-label)".format(*how if before.data.zero_ignored else how[::-1])
        return None if self.data.is_as(before.data) else _another("--data", before.data.spec, self.data.spec)

    def _weights(self, option: str) -> Weights | None:
        """Without --teacher, --ckpt is the teacher."""
        return self.weights.get(option) or (self.weights.get("--ckpt") if option == "--teacher" else None)


def _another(option: str, then: str, now: str) -> str:
    return f"{option} {then}, which has other content now" if now == then else f"{option} {then}, and not {now}"


def _sha256(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        try:
            check_regular(file.stat(), file)  # opening a pipe would wait for a writer
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DovitError(f"{file}: cannot be read: {error.strerror or error}; check the path") from None
    return total.hexdigest()
