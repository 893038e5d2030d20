import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dovit.runtime.bundle.macs import StepMacs
from dovit.runtime.bundle.manifest import DecisionSpec, FileEntry, Manifest, State, Step
from dovit.runtime.bundle.open import sha256
from dovit.runtime.bundle.tensors import TensorSpec
from dovit.runtime.cli import inspect

Inspect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A manifest and a file with its hash; dovit-inspect does not read the file."""
    file = tmp_path / "onnx" / "stem.onnx"
    file.parent.mkdir()
    file.write_bytes(b"x" * 1_500_000)
    state = State(tokens="tokens", index="index", full="full")
    tokens = TensorSpec(name="tokens", dtype="float32", shape=("batch", 25, 192))
    keep = TensorSpec(name="keep1", dtype="int32", shape=("batch", "kept1"))
    labels = TensorSpec(name="labels", dtype="uint8", shape=("batch", 64, 96))
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", 3, 4, 6))
    step = Step(
        name="stem",
        onnx="onnx/stem.onnx",
        inputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", 64, 96, 3)),),
        outputs=(tokens, keep),
        parameters=1_230_000,
        macs=StepMacs(fixed=10**9, per_token=10**7),
    )
    decoder = Step(
        name="decoder",
        onnx="onnx/stem.onnx",
        inputs=(tokens,),
        outputs=(labels, logits),
        parameters=0,
        macs=StepMacs(fixed=5 * 10**9),
    )
    decision = DecisionSpec(layer=2, state=state, threshold="threshold1", confidence="confidence1", keep="keep1")
    manifest = Manifest(
        dovit_version="0.1.0",
        architecture="setr-pup, ViT 6×192",
        image_size=(64, 96),
        patch=16,
        embed_dim=192,
        prefix=1,
        classes=3,
        class_names=("road", "sky", "[bold]car"),
        palette=None,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        slide_stride=(40, 60),
        precision="fp32",
        thresholds=(0.98,),
        capacities=(0, 12, 24),
        dense_macs=(1, 2),
        steps=(step, decoder),
        decisions=(decision,),
        final=state,
        taps=(),
        files={"onnx/stem.onnx": FileEntry(sha256=sha256(file), size=1_500_000)},
    )
    (tmp_path / "bundle.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return tmp_path


@pytest.fixture
def dovit_inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inspect:
    monkeypatch.setenv("COLUMNS", "60")  # nothing may be cut short

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dovit-inspect", *arguments])
        with pytest.raises(SystemExit) as end:
            inspect.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def test_shows_what_is_in_a_bundle(bundle: Path, dovit_inspect: Inspect) -> None:
    status, out, err = dovit_inspect(str(bundle))
    assert (status, err) == (0, "")
    for part in (
        "setr-pup, ViT 6×192",
        "64×96, patch 16, 24 tokens",
        "3 (road, sky, [bold]car)",
        "after layer 2: ξ = 0.98",
        "0, 12, 24",
        "40×60",
        "image uint8[batch, 64, 96, 3]",
        "tokens float32[batch, 25, 192]",
        "1.23",
        "1.25",
        "5.00",
        "onnx/stem.onnx",
        "1 files, 1.5 MB, all as exported (SHA-256)",
    ):
        assert part in out


@pytest.mark.parametrize(("kernel", "words"), [(1, "with a lens"), (7, "with a lens that sees 7×7 patches")])
def test_a_lens_is_named_with_what_it_sees(bundle: Path, dovit_inspect: Inspect, kernel: int, words: str) -> None:
    """A decision has one where the next step reads other tokens than the decoder does if all stop."""
    file = bundle / "bundle.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    assert "lens_kernel" not in content["decisions"][0]
    content["decisions"][0]["state"]["tokens"] = "lens1"
    content["decisions"][0]["lens_kernel"] = kernel
    stem, decoder = content["steps"]
    stem["outputs"].append({"name": "lens1", "dtype": "float32", "shape": ["batch", 25, 192]})
    decoder["inputs"].append({"name": "keep1", "dtype": "int32", "shape": ["batch", "kept1"]})
    file.write_text(json.dumps(content), encoding="utf-8")
    status, out, err = dovit_inspect(str(bundle))
    assert (status, err) == (0, "")
    said = " ".join(out.replace("│", " ").split())
    assert f"after layer 2: ξ = 0.98, {words} " in said


def test_json_is_the_manifest(bundle: Path, dovit_inspect: Inspect) -> None:
    status, out, err = dovit_inspect(str(bundle), "--json")
    assert (status, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out) == json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))


def flip(bundle: Path) -> None:
    (bundle / "onnx" / "stem.onnx").write_bytes(b"y" + b"x" * 1_499_999)


def cut(bundle: Path) -> None:
    (bundle / "onnx" / "stem.onnx").write_bytes(b"x")


def drop(bundle: Path) -> None:
    (bundle / "onnx" / "stem.onnx").unlink()


def rewrite(**changes: object) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        content = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        (bundle / "bundle.json").write_text(json.dumps(content | changes))

    return change


BAD = {
    "a flipped byte": (flip, "is not the file that was exported"),
    "a short file": (cut, "has 1 bytes, the manifest says 1500000"),
    "a missing file": (drop, "the bundle's file onnx/stem.onnx is missing"),
    "a newer schema": (rewrite(schema_version=99), "schema version 99 is newer than this dovit reads"),
    "a wrong field": (rewrite(patch="big"), "the field patch is wrong"),
    "a way out": (rewrite(files={"../x": {"sha256": "0", "size": 1}}), "leaves the bundle"),
    "no manifest": (lambda bundle: (bundle / "bundle.json").unlink(), "not a dovit bundle"),
    "no JSON": (lambda bundle: (bundle / "bundle.json").write_text("{"), "not a dovit manifest"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_bundle_that_is_not_whole_gets_one_sentence(
    bundle: Path, dovit_inspect: Inspect, kind: str, flags: tuple[str, ...]
) -> None:
    spoil, sentence = BAD[kind]
    spoil(bundle)
    status, out, err = dovit_inspect(str(bundle), *flags)
    assert (status, out) == (1, "")
    assert err.startswith("dovit-inspect: error: ") and sentence in err and err.count("\n") == 1


def test_control_characters_in_a_bundle_are_not_printed(bundle: Path, dovit_inspect: Inspect, tmp_path: Path) -> None:
    text = (bundle / "bundle.json").read_text()
    for name in ("setr-pup", "stem", "tokens"):
        text = re.sub(rf'"({name}[^"]*)"(?!:)', r'"\1\\u001b[31m\\u202e"', text)
    (bundle / "bundle.json").write_text(text)
    svg, dot = tmp_path / "chain.svg", tmp_path / "chain.dot"
    status, out, err = dovit_inspect(str(bundle), "--svg", str(svg), "--dot", str(dot))
    assert status == 0, err
    assert "tokens\\x1b[31m\\u202e float32" in out
    for shown in (out, svg.read_text(), dot.read_text()):
        assert "stem" in shown and "\x1b" not in shown and "\u202e" not in shown


def test_usage(dovit_inspect: Inspect) -> None:
    status, out, err = dovit_inspect()
    assert (status, out) == (2, "") and err.count("\n") == 1
    status, out, err = dovit_inspect("--help")
    assert (status, err) == (0, "") and "dovit-inspect engines/ --json" in out


def test_whether_tokens_are_merged(bundle: Path, dovit_inspect: Inspect) -> None:
    assert "stopped tokens into the class token" in dovit_inspect(str(bundle))[1]
    rewrite(merge=False)(bundle)
    assert "off: the class token stays as it is" in dovit_inspect(str(bundle))[1]
