"""Files that are no checkpoint or a damaged one: each is refused in one sentence, and no code in it is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from models import random_images, randomised, small_config
from pydantic import ValidationError

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.export.checkpoints.safe import read_file
from dovit.export.model import DoViT, ModelConfig
from dovit.runtime.errors import DovitError, UsageError, describe_validation


class _RunsCode:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("decoder", ["setr-mla", "segmenter-mask"])
def test_own_formats_round_trip(decoder: str, suffix: str, tmp_path: Path) -> None:
    model = randomised(small_config(decoder, head="setr-k3"))
    save_model(model, tmp_path / f"model{suffix}")
    loaded = load_model(tmp_path / f"model{suffix}")
    assert loaded.model.config == model.config
    image = random_images(model.config)
    with torch.inference_mode():
        assert torch.equal(loaded.model(image, [0.5, 0.5]).logits, model(image, [0.5, 0.5]).logits)
    assert [path.name for path in tmp_path.iterdir()] == [f"model{suffix}"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_models_without_a_class_token_round_trip(suffix: str, tmp_path: Path) -> None:
    """Their prefix is a tensor without elements, which files of other models must not have; and SETR-MLA starts so from timm."""
    model = randomised(small_config("setr-mla", prefix=0))
    save_model(model, tmp_path / f"model{suffix}")
    image = random_images(model.config)
    for options in (ReadOptions(), ReadOptions(untrained=True)):
        loaded = load_model(tmp_path / f"model{suffix}", options)
        with torch.inference_mode():
            assert torch.equal(loaded.model(image, [0.5, 0.5]).logits, model(image, [0.5, 0.5]).logits)


def test_an_empty_prefix_where_the_model_has_one(tmp_path: Path) -> None:
    model = randomised(small_config())
    content = {"dovit": model.config.model_dump(mode="json"), "state_dict": model.state_dict()}
    content["state_dict"]["backbone.prefix"] = torch.zeros(0, model.config.backbone.embed_dim)
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(DovitError, match=r"missing: backbone\.prefix"):
        load_model(tmp_path / "model.pth")


def test_own_checkpoint_at_another_size(tmp_path: Path) -> None:
    model = randomised(small_config(image_size=(64, 64)))
    save_model(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth", ReadOptions(image_size=(128, 96))).model
    assert loaded.config.grid == (8, 6)
    constant = randomised(small_config(image_size=(64, 64)))
    constant.backbone.pos_embed.data[:] = 0.25  # interpolation does not change a constant
    save_model(constant, tmp_path / "constant.pth")
    loaded = load_model(tmp_path / "constant.pth", ReadOptions(image_size=(128, 96))).model
    assert torch.allclose(loaded.backbone.pos_embed, torch.tensor(0.25))


def test_dense_leaves_the_heads_out(tmp_path: Path) -> None:
    model = randomised(small_config())
    save_model(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth", ReadOptions(dense=True))
    assert not loaded.model.config.decisions and "--dense" in loaded.notes[0]
    image = random_images(model.config)
    with torch.inference_mode():
        assert torch.equal(loaded.model(image).logits, model(image, [1.0, 1.0]).logits)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    for name, write in {
        "new.pth": lambda content, path: torch.save(content, path),
        "old.pth": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        "plain.pth": lambda content, path: path.write_bytes(pickle.dumps(content)),
    }.items():
        witness = tmp_path / f"witness-{name}"
        write({"state_dict": {"a": torch.zeros(1)}, "meta": _RunsCode(witness)}, tmp_path / name)
        with pytest.raises(DovitError, match="nothing of it was run") as error:
            load_model(tmp_path / name)
        assert "mkdir" in str(error.value), name
        assert not witness.exists()


def test_getattr_is_never_the_real_one(tmp_path: Path) -> None:
    """Training files name `getattr`; it must not reach anything through it."""

    class Reaches:
        def __reduce__(self) -> tuple:
            return getattr, (torch.zeros(1), "shape")

    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Reaches()}, tmp_path / "model.pth")
    from dovit.export.checkpoints.safe import _Ignored, read_file

    assert isinstance(read_file(tmp_path / "model.pth")["meta"], _Ignored)


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    save_model(randomised(small_config()), whole)
    save_model(randomised(small_config()), tmp_path / "whole.safetensors")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    cut = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "text.pth").write_text("<html>404</html>")
    (tmp_path / "image.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    for name, sentence in {
        "missing.pth": "no such checkpoint",
        "empty.pth": "is empty",
        "cut.pth": "cut off",
        "cut.safetensors": "cut off",
        "text.pth": "not a checkpoint",
        "image.pth": "not a checkpoint",
        "archive.pth": "zip archive without a torch checkpoint",
        "list.pth": "holds a list",
        "nothing.pth": "no weights",
        "resnet.pth": "none of the known formats",
        "": "a folder",
    }.items():
        with pytest.raises(DovitError, match=sentence) as error:
            load_model(tmp_path / name)
        assert "\n" not in str(error.value)


def _records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pack(path: Path, records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DoViT]:
    model = randomised(small_config())
    path = tmp_path_factory.mktemp("small") / "model.pth"
    save_model(model, path)
    return path, model


def _has_weights_of(path: Path, model: DoViT) -> bool:
    state = load_model(path).model.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_an_archive_packed_anew_is_read_right_or_refused(small: tuple[Path, DoViT], tmp_path: Path) -> None:
    path, model = small
    records = _records(path)
    with pytest.raises(DovitError, match="its records are compressed"):
        load_model(_pack(tmp_path / "deflated.pth", records, zipfile.ZIP_DEFLATED))
    assert _has_weights_of(_pack(tmp_path / "stored.pth", records), model)  # at addresses of any kind
    order = sorted(records, key=lambda name: (not name.endswith("data.pkl"), name[::-1]))
    assert _has_weights_of(_pack(tmp_path / "sorted.pth", {name: records[name] for name in order}), model)


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    model = randomised(small_config())
    torch.serialization.set_crc32_options(False)
    try:
        save_model(model, tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert _has_weights_of(tmp_path / "model.pth", model)


def test_damage_in_an_archive_is_found(small: tuple[Path, DoViT], tmp_path: Path) -> None:
    path, _ = small
    records = _records(path)
    data = next(name for name in records if name.endswith("data/5"))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = {entry.filename: entry.header_offset for entry in archive.infolist()}
    flipped = bytearray(whole)
    flipped[whole.index(records[data])] ^= 1
    renamed = whole.replace(b"data/5FB", b"data/6FB")
    overlapping = bytearray(whole)  # the directory says that record 5 lies where record 4 does
    entry = whole.rindex(data.encode()) - 46
    assert whole[entry : entry + 4] == b"PK\x01\x02"
    overlapping[entry + 42 : entry + 46] = places[data.replace("data/5", "data/4")].to_bytes(4, "little")
    for name, content, sentence in (
        ("flipped", bytes(flipped), r"checksum of the record .*data/5"),
        ("renamed", renamed, "not what the directory says"),
        ("overlapping", bytes(overlapping), "not what the directory says|overlap"),
        ("prefixed", b"x" * 100 + whole, "damaged|cut off"),
    ):
        (tmp_path / f"{name}.pth").write_bytes(content)
        with pytest.raises(DovitError, match=sentence):
            load_model(tmp_path / f"{name}.pth")
    for name, changed, sentence in (
        ("short", {data: records[data][:10]}, r"data/5 has 10 bytes, its tensors need \d+"),
        ("long", {data: records[data] + bytes(4)}, "its tensors need"),
        ("swapped", {data: records[data.replace("data/5", "data/0")]}, "its tensors need"),
    ):
        with pytest.raises(DovitError, match=sentence):
            load_model(_pack(tmp_path / f"{name}.pth", {**records, **changed}))
    del records[data]
    with pytest.raises(DovitError, match="data/5 is missing"):
        load_model(_pack(tmp_path / "missing.pth", records))


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path: Path) -> None:
    """A pickle can describe such a tensor, though torch.save writes none."""

    class Reaching:
        def __init__(self, storage: torch.UntypedStorage, offset: int, stride: tuple[int, ...]) -> None:
            self.args = (
                torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True),
                offset,
                stride,
            )

        def __reduce__(self) -> tuple:
            storage, offset, stride = self.args
            return torch._utils._rebuild_tensor_v2, (storage, offset, (4, 4), stride, False, {})

    for number, (offset, stride) in enumerate(
        [(1, (4, 1)), (0, (8, 1)), (0, (4, 1 << 40)), (-1, (4, 1)), (0, (-4, 1))]
    ):
        storage = torch.zeros(16).untyped_storage()
        for legacy in (False, True):
            file = tmp_path / f"{number}{legacy}.pth"
            torch.save({"a": Reaching(storage, offset, stride)}, file, _use_new_zipfile_serialization=not legacy)
            with pytest.raises(DovitError, match="damaged or cut off"):
                load_model(file)


UNFIT = {
    "sparse": lambda t: t.to_sparse(),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "complex": lambda t: t.to(torch.complex64),
    "meta": lambda t: t.to("meta"),
    "is empty": lambda t: t[:0],
    "elements in memory for": lambda t: t[:1].expand(10**9, *t.shape[1:]),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch, of its quantised tensors
@pytest.mark.parametrize("what", UNFIT)
def test_tensors_that_are_no_weights_are_refused(what: str, small: tuple[Path, DoViT], tmp_path: Path) -> None:
    _, model = small
    name, state = "decoder.classify.weight", dict(model.state_dict())
    state[name] = UNFIT[what](state[name])
    torch.save({"dovit": model.config.model_dump(mode="json"), "state_dict": state}, tmp_path / "model.pth")
    with pytest.raises(DovitError, match=what) as error:
        load_model(tmp_path / "model.pth")
    assert name in str(error.value)


def test_weights_of_integers_are_refused(small: tuple[Path, DoViT], tmp_path: Path) -> None:
    _, model = small
    state = {name: tensor.long() for name, tensor in model.state_dict().items()}
    torch.save({"dovit": model.config.model_dump(mode="json"), "state_dict": state}, tmp_path / "model.pth")
    with pytest.raises(DovitError, match=r"of another type: .*torch\.int64"):
        load_model(tmp_path / "model.pth")


BOMBS = {
    "lists": b"\x80\x02" + b"]" * 3_000_000 + b".",
    "a large bytearray": b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R.",
    "a memo of 2^31": b"\x80\x02]r\xff\xff\xff\x7f.",
    "copies of a list": b"\x80\x02]q\x00(" + b"K\x01" * 50_000 + b"e0" + b"cbuiltins\nset\nh\x00\x85R" * 1000 + b".",
}


@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("what", BOMBS)
def test_small_files_that_would_be_large_in_memory_are_refused(what: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    if container == "zip":
        _pack(path, {"model/data.pkl": BOMBS[what], "model/version": b"3"})
    else:
        values = (torch.serialization.MAGIC_NUMBER, 1001, {}) if container == "legacy" else ()
        path.write_bytes(b"".join(pickle.dumps(value, protocol=2) for value in values) + BOMBS[what])
    script = (
        "import resource, sys, pathlib; import dovit.export.checkpoints as c; from dovit.runtime.errors import DovitError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: c.load_model(sys.argv[1])\n"
        "except DovitError as error: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) < 300_000, "kibibytes"


def test_an_archive_that_inflates_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    _pack(path, {"model/data.pkl": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    start = time.process_time()
    with pytest.raises(DovitError, match="compressed"):
        load_model(path)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": {"depth": 100_000}},
        {"backbone": {"embed_dim": 1 << 40, "heads": 1}},
        {"backbone": {"norm_eps": "nan"}},
        {"image_size": (10**9, 10**9)},
        {"image_size": (1 << 15, 1 << 15)},
        {"classes": 10**9},
        {"decoder": {"num_convs": 1 << 31}},
        {"decoder": {"up_scale": 32, "num_convs": 16}},
        {"decoder": {"kernel": 2}},
        {"decoder": {"channels": 0}},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": ("inf", 1.0, 1.0)},
        {"thresholds": ("nan", 0.5)},
        {"thresholds": (0.5, 2.0)},
        {"slide_stride": (0, 16)},
        {"palette": [[256, 0, 0]] * 7},
        {"class_names": ["\x1b]0;title\x07"] * 7},
    ],
    ids=str,
)
def test_numbers_of_a_configuration_are_bounded(
    change: dict[str, Any], small: tuple[Path, DoViT], tmp_path: Path
) -> None:
    _, model = small
    config = model.config.model_dump(mode="json")
    for name, value in change.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    torch.save({"dovit": config, "state_dict": model.state_dict()}, tmp_path / "model.pth")
    start = time.process_time()
    with pytest.raises(DovitError, match="its configuration is not one that this dovit reads"):
        load_model(tmp_path / "model.pth")
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (ReadOptions(heads=7), "^--heads: does not fit .*7 attention heads do not divide"),
        (ReadOptions(stride=(500, 500)), "^--stride: does not fit .*leave gaps"),
        (ReadOptions(changes=("foo=1",)), "^--set: does not fit .*foo: "),
    ],
)
def test_an_option_that_does_not_fit_is_named_instead_of_the_file(
    options: ReadOptions, sentence: str, small: tuple[Path, DoViT], tmp_path: Path
) -> None:
    torch.save(
        {"dovit": small[1].config.model_dump(mode="json"), "state_dict": small[1].state_dict()}, tmp_path / "m.pth"
    )
    with pytest.raises(UsageError, match=sentence):
        load_model(tmp_path / "m.pth", options)


def test_what_is_wrong_is_named(small: tuple[Path, DoViT], tmp_path: Path) -> None:
    _, model = small
    config = {**model.config.model_dump(mode="json"), "classes": 1}
    torch.save({"dovit": config, "state_dict": model.state_dict()}, tmp_path / "model.pth")
    with pytest.raises(DovitError, match="classes: Input should be greater than or equal to 2, found 1"):
        load_model(tmp_path / "model.pth")


def test_a_number_too_long_to_print_is_refused(small: tuple[Path, DoViT], tmp_path: Path) -> None:
    _, model = small
    config = {**model.config.model_dump(mode="json"), "classes": 1 << 2000}
    torch.save({"dovit": config, "state_dict": model.state_dict()}, tmp_path / "model.pth")
    with pytest.raises(DovitError, match="classes: "):
        load_model(tmp_path / "model.pth")
    with pytest.raises(ValidationError) as error:
        ModelConfig.model_validate({**config, "classes": 10**5000})
    assert describe_validation(error.value).startswith("classes: ")


def test_control_characters_in_a_file_are_not_printed(small: tuple[Path, DoViT], tmp_path: Path) -> None:
    _, model = small
    state = {**model.state_dict(), "x\n\x1b[31m\u202e\ud800": torch.zeros(1)}
    torch.save({"dovit": model.config.model_dump(mode="json"), "state_dict": state}, tmp_path / "a\x1b[2J.pth")
    with pytest.raises(DovitError) as error:
        load_model(tmp_path / "a\x1b[2J.pth")
    assert str(error.value).isprintable() and "x\\n\\x1b[31m\\u202e\\ud800" in str(error.value)


def test_references_to_missing_files(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    for name, sentence in {
        "loop": "cannot be read",
        "pipe": "not a regular file",
        "file/below": "cannot be read",
        "a\0b": "cannot be read",
        "x" * 5000: "cannot be read",
    }.items():
        with pytest.raises(DovitError, match=sentence):
            load_model(tmp_path / name)


def test_a_damaged_configuration_is_one_sentence(tmp_path: Path) -> None:
    model = randomised(small_config())
    config = model.config.model_dump(mode="json")
    torch.save({"dovit": {**config, "classes": "many"}, "state_dict": model.state_dict()}, tmp_path / "model.pth")
    with pytest.raises(DovitError, match="classes"):
        load_model(tmp_path / "model.pth")
    torch.save({"dovit": config, "state_dict": {**model.state_dict(), "extra": torch.zeros(1)}}, tmp_path / "model.pth")
    with pytest.raises(DovitError, match="1 unknown keys: extra"):
        load_model(tmp_path / "model.pth")
    save_model(model, tmp_path / "model.pth")
    with pytest.raises(UsageError, match="sit after layers 2, 4"):
        load_model(tmp_path / "model.pth", ReadOptions(decision_layers=(1, 2)))


def test_a_checkpoint_may_be_cut_short_once_it_is_read(tmp_path: Path) -> None:
    """Mapped tensors would end the process with SIGBUS when they are used."""
    for suffix in (".pth", ".safetensors"):
        file = tmp_path / f"model{suffix}"
        state = {"a": torch.arange(1 << 16, dtype=torch.float32)}
        if suffix == ".pth":
            torch.save({"state_dict": state}, file)
        else:
            safetensors.torch.save_file(state, file)
        content = read_file(file)
        os.truncate(file, 0)
        assert torch.equal(content["state_dict"]["a"], state["a"])
