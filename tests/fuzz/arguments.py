"""Arguments: options of the commands, which are read from their definitions, and arguments of the library's functions."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from bundles import make_bundle
from models import randomised, small_config
from PIL import Image
from traces import cheaper_exports
from typer.models import OptionInfo

from dovit.evaluation.data import open_data
from dovit.export.checkpoints import save_model
from dovit.runtime import load
from dovit.runtime.cli.app import run_command
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.cli.start import COMMANDS
from dovit.runtime.images import as_rgb, read_image
from dovit.runtime.palettes import palette_for
from fuzz.common import (
    CONTROL,
    STRANGE_NUMBERS,
    STRANGE_TEXTS,
    Driver,
    Finding,
    check_sentence,
    mutate_json,
    strange_value,
)

TEXTS = (
    "",
    " ",
    ",",
    "1,2,,3",
    "0.5",
    "0.5,0.25",
    "0.5,nan",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0",
    "1",
    "2",
    "3.7",
    "0x10",
    "１２",
    "1" * 5000,
    "64x96",
    "0x0",
    "1000000000x1000000000",
    "64x",
    "x",
    "1:2",
    "50%",
    "-5%",
    "%",
    "\x1b[31m",
    "a\nb",
    "\udcff",
    "none",
    "auto",
    "cpu",
    "cuda",
    "cityscapes",
    "streets:2",
    "streets:0",
    "streets:-1",
    "streets:x",
    "folder:",
    "cityscapes:",
    "ade20k:/",
    "8.9",
    "9" * 400,
    "--",
    "-",
    "[red]x[/red]",
    "{}",
    "2147483648",
    "9223372036854775808",
    "model.backbone=1",
    "a=b=c",
    "=",
    "a.b.c=[1",
    "𝟙",
)
# each is valid, but takes longer than a mutant may
LIMITED = {"bench": ["--rounds", "1", "--warmup", "0"], "calibrate": ["--limit", "1"], "eval": ["--limit", "1"]}
# never given a random value: they say where to write, or how much work to do
NOT_FUZZED = {"--rounds", "--limit", "--steps", "--jobs", "--peers", "--sizes"}
# demo serves until it is stopped, map starts a cluster, adapt takes minutes
FUZZED = {name: module for name, (module, _) in COMMANDS.items() if name not in ("adapt", "demo", "map")}


def driver(folder: Path) -> Driver:
    """A bundle, its checkpoint, an image, labelled data and a palette."""
    torch.set_num_threads(1)
    model = randomised(small_config(layers=(1, 3), depth=4, classes=3, image_size=(32, 32)))
    with cheaper_exports():
        make_bundle(model, folder / "engines")
    save_model(model, folder / "model.pth")
    pixels = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "data/images/a.png")
    Image.fromarray(pixels[..., 0] % 3).save(folder / "data/labels/a.png")
    Image.fromarray(pixels).save(folder / "image.png")
    (folder / "palette.json").write_text(json.dumps({"names": ["a", "b", "c"], "colours": [[1, 2, 3]] * 3}))
    return _Arguments(folder)


class _Arguments:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.session = load(folder / "engines")
        self.modules = {name: importlib.import_module(module) for name, module in FUZZED.items()}
        self.options = {name: _options(module.command) for name, module in self.modules.items()}

    def attempt(self, random: Random, folder: Path) -> str:
        paths = self._places(folder)
        before = Path.cwd()
        os.chdir(folder)
        try:
            return self._command(random, paths) if random.random() < 0.6 else self._function(random, paths, folder)
        finally:
            os.chdir(before)

    def _places(self, folder: Path) -> dict[str, str]:
        """Copies to work on, and paths of every awkward kind; all of them in `folder`."""
        for name in ("engines", "data"):
            shutil.copytree(self.folder / name, folder / name)
        for name in ("model.pth", "image.png", "palette.json"):
            shutil.copy(self.folder / name, folder)
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "text.txt").write_text("hello")
        (folder / "empty").touch()
        os.mkfifo(folder / "pipe")
        (folder / "nothing").mkdir()
        return {
            "engine": "engines",
            "ckpt": "model.pth",
            "image": "image.png",
            "data": "data",
            "palette": "palette.json",
            "out": "out",
            "missing": "missing",
            "loop": "loop",
            "below a file": "text.txt/x",
            "text": "text.txt",
            "empty": "empty",
            "folder": "nothing",
            "long": "x" * 300,
            "longer": "x/" * 3000,
            "pipe": "pipe",
            "full": "/dev/full",
            "codes": "\x1b[2J\n",
        }

    # --- commands ---

    def _command(self, random: Random, paths: dict[str, str]) -> str:
        name = random.choice([*FUZZED, "dovit"])
        if name == "dovit":
            words = [
                random.choice([*TEXTS, "run", "--version", "--help", "nonsense"]) for _ in range(random.randint(0, 3))
            ]
            from dovit.runtime.cli.main import main

            sys.argv = ["dovit", *words]
            return self._run(main, "dovit", words)
        module = self.modules[name]
        words = self._words(name, random, paths)

        def called() -> None:
            sys.argv = [f"dovit-{name}", *words]
            run_command(module.command, f"dovit-{name}", epilog=module.EPILOG)

        return self._run(called, f"dovit-{name}", words)

    def _words(self, name: str, random: Random, paths: dict[str, str]) -> list[str]:
        inputs = [*paths.values()]
        outputs = [
            value for kind, value in paths.items() if kind not in ("pipe",)
        ]  # writing to a pipe waits for a reader

        def value(kind: str, option: str) -> str:
            if kind == "path":
                return random.choice(outputs if option in OUTPUTS else inputs)
            if kind.startswith("choice:") and random.random() < 0.6:
                return random.choice(kind.removeprefix("choice:").split(","))
            return random.choice([*TEXTS, *inputs[:6]])

        right = {
            "run": ["--engine", "engines", "image.png"],
            "inspect": ["engines"],
            "bench": ["--engine", "engines"],
            "export": ["--ckpt", "model.pth", "--out", "out"],
            "calibrate": ["--engine", "engines", "--images", "data/images"],
            "eval": ["--engine", "engines", "--data", "data"],
            "train": ["--ckpt", "model.pth", "--data", "data", "--out", "out"],
            "serve": ["--engine", "engines", "--repository", "out", "--name", "street"],
        }[name]
        words = list(right) if random.random() < 0.8 else []
        if words and random.random() < 0.5:  # a valid value is made invalid
            places = [k for k, word in enumerate(words) if not word.startswith("-")]
            words[random.choice(places)] = random.choice(
                [p for kind, p in paths.items() if kind != "pipe" or name != "train"]
            )
        for _ in range(random.choice([0, 1, 1, 2, 4])):
            option, kind = random.choice(self.options[name])
            if option in NOT_FUZZED:
                continue
            words += [option] if kind == "flag" else [option, value(kind, option)]
        if name in ("export", "train"):  # a valid call takes seconds, so an invalid option is added last
            words += random.choice(
                [["--threshold", "7"], ["--decision-layers", "9,9"], ["--ckpt", "missing"], ["--classes", "77"]]
            )
        return words + LIMITED.get(name, [])

    def _run(self, called: Any, name: str, words: list[str]) -> str:
        out, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape") for _ in range(2))
        status: Any = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                called()
            except SystemExit as end:
                status = end.code
        texts = []
        for stream in (out, error):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8", "surrogateescape"))  # type: ignore[attr-defined]
        for text in texts:
            found = CONTROL.search(text.replace("\n", ""))
            if found:
                raise Finding(f"{name} {words} prints the control character {found[0]!r}: {text[:300]!r}")
            if "internal error" in text or "Traceback" in text:
                raise Finding(f"{name} {words}: {text[-600:]}")
        if status not in (0, 1, 2):
            raise Finding(f"{name} {words} ends with {status}")
        if status:
            last = texts[1].strip().splitlines()[-1:] or [""]
            if not last[0].startswith(f"{name}: error: ") and not last[0].startswith("dovit"):
                raise Finding(f"{name} {words} ends with {status} and says {texts[1][-300:]!r}")
            check_sentence(last[0])
        return f"status {status}"

    # --- functions ---

    def _function(self, random: Random, paths: dict[str, str], folder: Path) -> str:
        path = random.choice([*paths.values(), "a\0b", "", ".", "\ud800"])
        kind = random.randrange(8)
        if kind == 0:
            load(
                path,
                **_some(random, {"backend": ["onnxruntime", "tensorrt-rtx", "nonsense", 5, None], "threads": [1, 2]}),
            )
        elif kind == 1:
            read_image(path)
        elif kind == 2:
            find_inputs([path, random.choice(["*", "**", "[", "a\0b", "~"])], recursive=random.random() < 0.5)
        elif kind == 3:
            file = folder / "palette.json"
            file.write_text(_mutated(file.read_text(), random), errors="replace")
            palette_for(random.choice([str(file), path]), random.choice([0, 1, 3, 256]))
        elif kind == 4:
            shutil.copy(folder / "palette.json", folder / "data/classes.json")
            file = folder / "data/classes.json"
            file.write_text(_mutated(file.read_text(), random), errors="replace")
            size = (32, 32)
            open_data(
                random.choice(["data", path, f"streets:{path[:5]}"]),
                "val",
                size=size,
                classes=3,
                reduce_zero_label=False,
            )
        elif kind == 5:
            as_rgb(_odd_image(random))
        else:
            given = {
                "threshold": [
                    None,
                    0.5,
                    np.float32(0.5),
                    np.float64(0.25),
                    np.array([0.5, 0.5]),
                    np.array(0.5),
                    [np.float16(0.5)] * 2,
                    torch.tensor(0.5),
                    "0.5",
                    [],
                    [[0.5, 0.5]],
                    {},
                    object(),
                    True,
                    *STRANGE_NUMBERS[-10:],
                    (0.5, None),
                    "x",
                ],
                "counts": [
                    None,
                    [2, 1],
                    np.array([2, 1]),
                    [np.int64(2), 1],
                    [1, 2],
                    [2.5, 1],
                    "21",
                    3,
                    [],
                    [10**30, 1],
                    [True, False],
                ],
                "schedule": [None, "exact", "rounded", "bucketed", "x", 5, []],
                "mode": ["whole", "slide", "x", None, 5],
                "return_logits": [True, False, None, "x"],
                "keep_ratio": [True, False, 5, "x"],
                "labels": ["image", "model", "x", 5, []],
                "format": ["rgb", "bgr", "gray", "rgba", "x", 5, []],
                "layout": ["hwc", "chw", "x", 5],
                "keep": [
                    None,
                    [0.5, 0.25],
                    np.array([0.5, 0.25]),
                    [np.nan, 0.5],
                    "x",
                    [2, 1],
                    0.5,
                    [],
                    [0.25, 0.5],
                    {},
                ],
            }
            image = np.zeros((32, 32, 3), np.uint8) if random.random() < 0.7 else _odd_image(random)
            self.session(image, **_some(random, given))
        return f"function {kind} accepted it"


OUTPUTS = {"--out", "--dot", "--svg", "--plot", "--per-image", "--timing-cache", "--cache", "-o", "--repository"}


def _mutated(text: str, random: Random) -> str:
    try:
        return json.dumps(mutate_json(json.loads(text), random))
    except RecursionError:  # it is deeper than what json can write
        return '{"colours": ' + "[" * 100_000


def _some(random: Random, given: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: random.choice(values) for name, values in given.items() if random.random() < 0.5}


def _odd_image(random: Random) -> Any:
    sizes = [(0, 0), (0, 5), (1, 1), (1, 1800), (33, 31)]
    size = random.choice(sizes)
    mode = random.choice(
        ["RGB", "L", "1", "P", "F", "I", "I;16", "CMYK", "LAB", "HSV", "YCbCr", "LA", "PA", "RGBa", "La", "RGBX"]
    )
    return random.choice(
        [
            lambda: Image.new(mode, size),
            lambda: np.zeros((*size, 3), random.choice([np.uint8, np.float32, bool, complex, object])),
            lambda: np.zeros((*size, random.choice([0, 1, 4])), np.uint8),
            lambda: np.zeros(size, np.uint8),
            lambda: np.uint8(5),
            lambda: np.broadcast_to(np.uint8(7), (*size, 3)),
            lambda: np.zeros((*size, 3), np.uint8)[::-1, ::-1],
            lambda: np.zeros((*size, 3), np.uint8)[..., ::-1],
            lambda: np.ma.zeros((4, 4, 3), np.uint8),
            lambda: strange_value(random),
            lambda: random.choice(STRANGE_TEXTS),
            lambda: torch.zeros((4, 4, 3), dtype=torch.uint8),
            lambda: None,
        ]
    )()


def _options(command: Any) -> list[tuple[str, str]]:
    """(option, what it takes) of a command: `flag`, `path`, `choice:A,B` or `text`."""
    found = []
    for name, annotation in get_type_hints(command, include_extras=True).items():
        about = next((each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, OptionInfo)), None)
        if about is None:
            continue
        taken = [
            kind for kind in (get_args(annotation.__origin__) or (annotation.__origin__,)) if kind is not type(None)
        ]
        names = [each for text in about.param_decls or () for each in text.split("/")] or [
            f"--{name.replace('_', '-')}"
        ]
        kind = "text"
        if taken[0] is bool:
            kind = "flag"
        elif taken[0] is Path:
            kind = "path"
        elif isinstance(taken[0], type) and issubclass(taken[0], Enum):
            kind = "choice:" + ",".join(choice.value for choice in taken[0])
        found += [(each, kind) for each in names]
    assert len(found) >= 5, command
    return found
