"""The state of a run, from which training continues with identical results: saved, also before an error ends it, and loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dovit.export.checkpoints.own import write_torch
from dovit.export.model import DoViT
from dovit.runtime.errors import DovitError, OutputError, UsageError, first_line
from dovit.runtime.files import check_regular
from dovit.runtime.interrupts import Interrupted
from dovit.training.log import LOG_NAME
from dovit.training.origin import Origin
from dovit.training.parallel import Process
from dovit.training.settings import Settings
from dovit.training.stop import HOW_TO_GO_ON

STATE_NAME = "last.pt"


class DivergedError(DovitError):
    """The loss or a weight is no longer a number."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: train with a lower --lr, a longer --warmup or --clip 1")


class RunState:
    """How many `steps` a run has done, and how many of them OUT/last.pt has."""

    def __init__(
        self,
        out: Path,
        settings: Settings,
        origin: Origin,
        model: DoViT,
        optimiser: torch.optim.Optimizer,
        process: Process,
    ) -> None:
        """Loads the state where there is one, as `load_state` does."""
        self._out, self._settings, self._origin, self._model, self._optimiser = out, settings, origin, model, optimiser
        self._process = process
        self.steps = self._saved = load_state(out, settings, origin, model, optimiser)

    def save(self) -> None:
        """Let OUT/last.pt have the steps done so far. All processes call it.

        Raises DivergedError where a weight is not finite, DovitError where the file cannot be written; then it is as it was.
        """
        if self._saved == self.steps:
            return
        # the loss is looked at in steps that are logged, and the last step's own change in none
        if not all(torch.isfinite(parameter).all() for parameter in self._model.parameters()):
            raise DivergedError(f"weights are no longer finite after {self.steps} steps")
        with self._process.together():
            if self._process.is_first:
                save_state(self._out, self.steps, self._settings, self._origin, self._model, self._optimiser)
        self._saved = self.steps

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A block in which no DovitError loses steps: they are saved before it is raised, and its sentence says how to go on.
        Requires that such an error ends the block in all processes (see Process.together)."""
        try:
            yield
        except (Interrupted, DivergedError):  # that says it itself, and this one has nothing to save
            raise
        except DovitError as error:
            sentence = str(error)
            try:
                self.save()
            except DivergedError as failure:
                sentence += f"; {failure}"
            except DovitError as failure:
                if not isinstance(error, OutputError):  # a full disk need not be named twice
                    sentence += f"; {failure}"
            raise type(error)(f"{sentence}{self._going_on()}") from error.__cause__

    def _going_on(self) -> str:
        if self._saved:
            path = self._out / STATE_NAME
            return f"; {path} has {self._saved} of {self._settings.steps} steps: {HOW_TO_GO_ON}"
        if self.steps:
            return f"; no step is saved: to begin anew, delete {self._out / LOG_NAME} and give the same command"
        return ""


def save_state(
    out: Path, step: int, settings: Settings, origin: Origin, model: DoViT, optimiser: torch.optim.Optimizer
) -> None:
    """Write OUT/last.pt, after `step` steps, whole or not at all. Random numbers need no saving: they are a function of
    seed and step."""
    content = {
        "step": step,
        "settings": settings.model_dump(mode="json"),
        "origin": origin.model_dump(mode="json"),
        # what the model is beside its weights, such as how it merges stopped tokens
        "config": model.config.model_dump(mode="json"),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    write_torch(content, out / STATE_NAME)


def load_state(out: Path, settings: Settings, origin: Origin, model: DoViT, optimiser: torch.optim.Optimizer) -> int:
    """Bring model and optimiser to where OUT/last.pt left them, and return how many steps that is; 0 without such a file.

    Raises UsageError where it belongs to a run with other settings or another origin, DovitError where it cannot be read.
    """
    path = out / STATE_NAME
    if not path.exists():
        return 0
    try:
        check_regular(path.stat(), path)
        if not zipfile.is_zipfile(path):  # torch would say so in many words
            raise ValueError("the end of its archive is missing")
        content = torch.load(path, map_location="cpu", weights_only=True)
        began = content.get("origin")  # earlier versions did not store it
        changed = None if began is None else origin.difference(Origin.model_validate(began))
        if changed:
            raise UsageError(f"{path} is of a run with {changed}: give the same, or another --out")
        saved = Settings.model_validate(content["settings"])
        other = settings.differences(saved)
        given, stored = model.config.model_dump(mode="json"), content.get("config")
        if stored is not None:  # earlier versions did not store it
            other += sorted(key for key in given.keys() | stored.keys() if given.get(key) != stored.get(key))
        if other:
            # versions before the norm added heads without one
            plain = "decisions" in other and not any(head["norm"] for head in stored["decisions"])
            hint = " (its decision heads have no norm: --no-head-norm)" if plain else ""
            raise UsageError(
                f"{path} is of a run with other settings ({', '.join(other)}): give the same{hint}, or another --out"
            )
        step = content["step"]
        if type(step) is not int or not 0 < step <= settings.steps:
            raise ValueError(f"step {step} of {settings.steps}")
        own = _groups(optimiser)
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        _check_optimiser(optimiser, own)
        return step
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # torch, pickle and zipfile have no common base for what they make of a damaged file
        raise DovitError(
            f"{path}: not the state of a run of this model, or damaged ({first_line(error)}); to begin anew, delete "
            f"it and {LOG_NAME}, or give another --out"
        ) from None


def _groups(optimiser: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """An optimiser's parameter groups, which the run's settings determine, without the step's learning rate."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")} for group in optimiser.param_groups
    ]


def _check_optimiser(optimiser: torch.optim.Optimizer, own: list[dict[str, Any]]) -> None:
    """Raises ValueError where what was loaded does not fit the parameters: torch takes anything, and fails in the step."""
    if _groups(optimiser) != own:
        raise ValueError("the optimiser's groups are other ones")
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            for name, value in optimiser.state.get(parameter, {}).items():
                fits = value is None or (isinstance(value, Tensor) and value.layout == torch.strided)
                shape = () if name == "step" else parameter.shape
                if not fits or (value is not None and (value.shape != shape or value.dtype != torch.float32)):
                    raise ValueError(f"the optimiser's {name} does not fit a parameter of {list(parameter.shape)}")
