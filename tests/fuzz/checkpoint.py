"""Checkpoints: mutants of every format that is read, of their tensors, keys, metadata, containers and bytes.

A mutant that is accepted must make a model that runs; and where only bytes of an archive were changed, its weights must be
those of the original.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from dovit.export.checkpoints import ReadOptions, load_model
from dovit.export.model import DoViT
from fuzz.checkpoint_seeds import Seed, seeds
from fuzz.common import STRANGE_TEXTS, Driver, Finding, mutate_bytes, mutate_json, mutate_text, strange_value


def driver(folder: Path) -> Driver:
    """One checkpoint of every format, each of which can be read."""
    torch.set_num_threads(1)
    return _Checkpoints(seeds(folder))


class _Checkpoints:
    def __init__(self, made: list[Seed]) -> None:
        self.seeds = made
        for seed in made:
            seed.weights = load_model(seed.path, seed.options).model.state_dict()

    def attempt(self, random: Random, folder: Path) -> str:
        seed = random.choice(self.seeds)
        path, options = folder / seed.path.name, seed.options
        mutate = random.choice(
            [
                _bytes,
                _bytes,
                _tensors,
                _tensors,
                _keys,
                _metadata,
                _metadata,
                _container,
                _container,
                _pickle,
                _variant,
                _bomb,
            ]
        )
        if seed.variant is not None:
            (folder / "variant.yml").write_text(seed.variant)
        try:
            mutate(seed, path, random)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            OverflowError,
            NotImplementedError,
            AttributeError,
            RecursionError,
            IndexError,
            KeyError,
            pickle.PicklingError,
            UnicodeError,
        ) as error:
            return f"not made: {type(error).__name__}"
        if random.random() < 0.1:
            options = _options(random)
        model = load_model(path, options).model
        if mutate is _bytes and seed.container == "zip" and options is seed.options and not options.untrained:
            _same(model.state_dict(), seed.weights)
        _runs(model)
        return f"accepted after {mutate.__name__}"


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if not torch.equal(found[name], tensor):
            raise Finding(f"an archive with changed bytes was read, and {name} has other values")


def _runs(model: DoViT) -> None:
    """Run the model once if it is small: an accepted checkpoint must be usable."""
    config = model.config
    if config.tokens > 64 or config.backbone.depth > 12 or config.classes > 100 or max(config.image_size) > 512:
        return
    image = torch.zeros((1, *config.image_size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        model(image)


def _options(random: Random) -> ReadOptions:
    return ReadOptions(
        arch=random.choice([None, "setr-mla", "segmenter-mask", "setr-naive", "segmenter-linear", "nonsense"]),
        image_size=random.choice(
            [None, (32, 32), (16, 64), (1, 1), (0, 0), (-16, 16), (10**9, 16), (10**9, 10**9), (4096, 16)]
        ),
        classes=random.choice([None, 0, 1, 3, 4, 10**9]),
        decision_layers=random.choice([None, (1,), (1, 2), (2, 1), (0,), (10**9,), (-1, 1), ()]),
        thresholds=random.choice([None, (0.5,), (0.5, 0.5), (2.0,), (float("nan"),), ()]),
        dense=random.random() < 0.3,
        untrained=random.random() < 0.3,
        plain=random.random() < 0.3,
    )


def _bytes(seed: Seed, path: Path, random: Random) -> None:
    path.write_bytes(mutate_bytes(seed.path.read_bytes(), random))


# --- contents ---

ODD_TENSORS: list[Callable[[Tensor], Any]] = [
    lambda t: t.T if t.ndim == 2 else t.transpose(0, -1),
    lambda t: t.flatten(),
    lambda t: t[None],
    lambda t: t[..., None],
    lambda t: t.sum(),
    lambda t: t[:0],
    lambda t: t[..., :0],
    lambda t: t[:1],
    lambda t: torch.cat([t, t]),
    lambda t: torch.cat([t, t], -1),
    lambda t: t.to(torch.complex64),
    lambda t: t.long(),
    lambda t: t.bool(),
    lambda t: t.to(torch.uint16),
    lambda t: t.double(),
    lambda t: t.half(),
    lambda t: t.bfloat16(),
    lambda t: t.to(torch.float8_e4m3fn),
    lambda t: t.to_sparse(),
    lambda t: t.to_sparse_csr(),
    lambda t: t.to("meta"),
    lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    lambda t: torch.quantize_per_channel(t, torch.ones(len(t)), torch.zeros(len(t)), 0, torch.quint8),
    lambda t: torch.nested.nested_tensor([t, t]),
    lambda t: t.expand(10**9, *t.shape),
    lambda t: t[:1].expand(10**9, *t.shape[1:]),
    lambda t: t.flatten()[:1].expand(t.shape) if t.ndim == 1 else t[:1].expand(t.shape),
    lambda t: torch.nn.Parameter(t),
    lambda t: t.as_strided(t.shape, [0] * t.ndim),
    lambda t: t.numpy(),
    lambda t: t.tolist(),
    lambda t: t * float("nan"),
    lambda t: torch.view_as_complex(torch.stack([t, t], -1)).conj(),
    lambda t: t.reshape([1] * 20 + list(t.shape)),
    lambda t: torch._neg_view(t),
    lambda t: None,
]


def _tensors(seed: Seed, path: Path, random: Random) -> None:
    content, state = seed.content()
    for _ in range(random.choice([1, 1, 2, 5])):
        name = random.choice(list(state))
        state[name] = random.choice(ODD_TENSORS)(state[name])
    _write(content, path, seed, random)


def _keys(seed: Seed, path: Path, random: Random) -> None:
    content, state = seed.content()
    for _ in range(random.choice([1, 1, 2, 20])):
        name, other = random.choice(list(state)), random.choice(list(state))
        kind = random.randrange(6)
        if kind == 0:
            state.pop(name)
        elif kind == 1:
            state[mutate_text(str(name), random)] = state[name]
        elif kind == 2:
            state[random.choice([*STRANGE_TEXTS, 5, None, ("a", 1), b"a", True, 1.5])] = state[name]
        elif kind == 3:
            state[name], state[other] = state[other], state[name]
        elif kind == 4:
            state[str(name).replace("0", random.choice(["1", "99999999999999", "²"]))] = state.pop(name)
        else:
            state[name] = strange_value(random)
    _write(content, path, seed, random)


def _metadata(seed: Seed, path: Path, random: Random) -> None:
    content, _ = seed.content()
    for key, value in list(content.items()):
        if key != "state_dict":
            content[key] = mutate_json(value, random)
    if random.random() < 0.2:
        content[random.choice(["meta", "dovit", "model", "state_dict", "x"])] = strange_value(random)
    _write(content, path, seed, random)


def _write(content: Any, path: Path, seed: Seed, random: Random) -> None:
    if seed.container == "safetensors":
        if any(isinstance(each, Tensor) and each.numel() > 10**7 for each in content["state_dict"].values()):
            raise ValueError("safetensors writes every element, gigabytes of them")
        tensors = {str(k): v.clone().contiguous() for k, v in content["state_dict"].items() if isinstance(v, Tensor)}
        from safetensors.torch import save

        about = {"dovit": json.dumps(content.get("dovit")), "x": random.choice(STRANGE_TEXTS[:12])}
        path.write_bytes(save(tensors, about))
        return
    torch.save(content, path, _use_new_zipfile_serialization=seed.container == "zip")


# --- containers ---


def _container(seed: Seed, path: Path, random: Random) -> None:
    data = seed.path.read_bytes()
    if seed.container == "safetensors":
        (length,) = struct.unpack("<Q", data[:8])
        header = json.dumps(mutate_json(json.loads(data[8 : 8 + length]), random)).encode()
        length = random.choice([len(header), len(header), len(header), 0, 2**40, 2**64 - 1])
        path.write_bytes(struct.pack("<Q", length) + header + data[8 + struct.unpack("<Q", data[:8])[0] :])
        return
    if seed.container == "legacy":
        path.write_bytes(mutate_bytes(data[:3000], random) + data[3000:])
        return
    records = _unzip(data)
    names = list(records)
    kind, name, other = random.randrange(8), random.choice(names), random.choice(names)
    method = zipfile.ZIP_STORED
    if kind == 0:
        method = random.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    elif kind == 1:
        records[name] = records[name][: random.choice([0, 1, 10])]
    elif kind == 2:
        records[name] += bytes(random.choice([1, 64, 10_000]))
    elif kind == 3:
        records[name] = records[other]
    elif kind == 4:
        del records[name]
    elif kind == 5:
        records[random.choice([*STRANGE_TEXTS[1:12], name.upper(), "x/data.pkl", "model/data/../data/0"])] = (
            records.pop(name)
        )
    elif kind == 6:
        names.reverse()
        records = {n: records[n] for n in names}
    _zip(path, records, method)
    if kind == 7:  # the directory, at the end, alone
        whole = path.read_bytes()
        at = whole.rfind(b"PK\x01\x02", 0, len(whole) - 200)
        path.write_bytes(whole[:at] + mutate_bytes(whole[at:], random))


def _unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(path: Path, records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)


def _pickle(seed: Seed, path: Path, random: Random) -> None:
    """Alter the pickle and correct its checksum."""
    if seed.container != "zip":
        _bytes(seed, path, random)
        return
    records = _unzip(seed.path.read_bytes())
    name = next(n for n in records if n.endswith("data.pkl"))
    records[name] = mutate_bytes(records[name], random)
    _zip(path, records)


def _variant(seed: Seed, path: Path, random: Random) -> None:
    path.write_bytes(seed.path.read_bytes())
    variant = path.with_name("variant.yml")
    text = seed.variant or "net_kwargs: {}"
    kind = random.randrange(4)
    if kind == 0:
        variant.write_bytes(mutate_bytes(text.encode(), random))
    elif kind == 1:
        import yaml

        variant.write_text(yaml.safe_dump(mutate_json(yaml.safe_load(text), random)), errors="replace")
    elif kind == 2:
        value = random.choice(
            [
                "!!python/object/apply:os.system ['true']",
                "2001-99-99",
                "{[1]: 2}",
                "&a [*a]",
                "[" * 3000,
                "1e400",
                "0x" + "f" * 5000,
                "!!binary x",
                "!!timestamp x",
                "!!int x",
                "!!set {a, b}",
                "<<: 3",
                "? : ?",
                ".nan",
                "-.inf",
                "1:1:1",
                "'\\ud800'",
            ]
        )
        key = random.choice(["patch_size", "n_heads", "normalization", "window_stride", "window_size", "net_kwargs"])
        variant.write_text(text + f"\n  {key}: {value}\n" if random.random() < 0.7 else value)
    else:
        variant.unlink(missing_ok=True)
        random.choice([variant.mkdir, lambda: os.mkfifo(variant), lambda: variant.symlink_to(variant), lambda: None])()


def _bomb(seed: Seed, path: Path, random: Random) -> None:
    """Small files that would be large in memory or deeply nested."""
    end = b"."
    pickled = random.choice(
        [
            b"\x80\x02" + b"]" * 3_000_000 + end,
            b"\x80\x02" + b"](" * 1_000_000 + end,
            b"\x80\x02}q\x00(" + b"".join(b"K\x01h\x00" for _ in range(1000)) + b"u" + end,
            b"\x80\x02]r\xff\xff\xff\x7f" + end,
            b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R" + end,
            b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R" + end,
            b"\x80\x02X\xff\xff\xff\xff" + b"a" * 1000 + end,
            b"\x80\x02]q\x00(" + b"K\x01" * 100_000 + b"e0" + b"cbuiltins\nset\nh\x00\x85R" * 1000 + end,
            b"\x80\x02]q\x00(" + b"K\x01" * 100_000 + b"e0" + b"ctorch\nSize\nh\x00\x85R" * 10_000 + end,
            b"\x80\x02ctorch\nFloatTensor\nJ\x00\x00\x00\x70\x85R" + end,
            b"\x80\x02]" + b"q\x01]h\x01ah\x01a" * 60 + end,
        ]
    )
    container = random.choice(["zip", "deflated", "legacy", "plain"])
    if container == "plain":
        path.write_bytes(pickled)
    elif container == "legacy":
        with path.open("wb") as stream:
            for value in (torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}):
                pickle.dump(value, stream, protocol=2)
            stream.write(pickled)
            pickle.dump([], stream, protocol=2)
    else:
        size = random.choice([10**6, 10**9]) if container == "deflated" else 10
        method = zipfile.ZIP_DEFLATED if container == "deflated" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
            archive.writestr("m/data.pkl", pickled)
            archive.writestr("m/version", "3")
            if random.random() < 0.1:
                with archive.open("m/data/0", "w") as record:
                    for _ in range(size // 10**6):
                        record.write(bytes(10**6))
