"""Files that are no checkpoint, or a broken one: one sentence each, and nothing of them is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from models import random_images, randomised, small_config

from dovit.export.checkpoints import ReadOptions, load_model, save_model
from dovit.runtime.errors import DovitError, UsageError


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


def test_own_checkpoint_at_another_size(tmp_path: Path) -> None:
    model = randomised(small_config(image_size=(64, 64)))
    save_model(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth", ReadOptions(image_size=(128, 96))).model
    assert loaded.config.grid == (8, 6)
    constant = randomised(small_config(image_size=(64, 64)))
    constant.backbone.pos_embed.data[:] = 0.25  # a constant stays what it is under any interpolation
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
