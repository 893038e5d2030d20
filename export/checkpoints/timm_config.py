"""timm's config.json, which lies beside its model.safetensors: what of it changes a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dovit.runtime.errors import DovitError
from dovit.runtime.files import parse_json, read_text

# arguments of timm's VisionTransformer → the values with which its layers are those of `BackboneConfig`
PLAIN: dict[str, tuple[Any, ...]] = {
    "in_chans": (3,),
    "qk_norm": (False,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "pre_norm": (False,),
    "pos_embed": ("learn",),
    "norm_layer": (None, "layernorm"),
    "act_layer": (None, "gelu"),
    "embed_norm_layer": (None,),
    "dynamic_img_pad": (False,),
    "block_fn": (None,),
    "mlp_layer": (None,),
    "attn_layer": ("", "attn"),
}
# those that are compared with the weights or used, and those that are for training or for the classifier
USED = (
    "img_size",
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
    "class_token",
    "no_embed_class",
    "qkv_bias",
    "proj_bias",
    "init_values",
    "reg_tokens",
)
OTHER = (
    "num_classes",
    "global_pool",
    "mlp_ratio",
    "final_norm",
    "fc_norm",
    "pool_include_prefix",
    "dynamic_img_size",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
)


@dataclass(frozen=True)
class TimmConfig:
    """What the file says; all empty where there is none. `mean` and `std` are (place, RGB from 0 to 255), as settings are."""

    file: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None  # height, width in pixels: of the model
    input_size: tuple[int, int] | None = (
        None  # of the data, which a model that was made for another size may not follow
    )
    mean: tuple[str, tuple[float, float, float]] | None = None
    std: tuple[str, tuple[float, float, float]] | None = None
    notes: tuple[str, ...] = ()

    def size_of(self, rows: int, patch: int) -> tuple[int, int] | None:
        """The image size that `rows` positions belong to: the model's, or the data's where the counts are equal."""
        if self.image_size is None and self.input_size is not None:
            height, width = self.input_size
            return self.input_size if (height // patch) * (width // patch) == rows else None
        return self.image_size

    def setting(self, name: str) -> tuple[str, Any] | None:
        """An argument of the model with its place; None where it is not said."""
        return (f"{self.file.name}: {name}", self.arguments[name]) if name in self.arguments else None

    def check(self, **found: Any) -> None:
        """DovitError where the file says another value than the weights are of."""
        for name, value in found.items():
            said = self.arguments.get(name, value)
            if said != value:
                raise DovitError(
                    f"{self.file}: {name} is {said}, and the weights are of {value}: give the file of this checkpoint"
                )


def read_timm_config(file: Path, *, required: bool) -> TimmConfig:
    """What `file` says. A missing or foreign one says nothing, unless it is `required` to be timm's. Raises DovitError."""
    try:
        content = parse_json(read_text(file))
    except FileNotFoundError:
        if required:
            raise DovitError(f"{file}: no such configuration") from None
        return TimmConfig(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DovitError(f"{file}: not timm's config.json ({error}); copy it again, or take it away") from None
    if not isinstance(content, dict) or not ("pretrained_cfg" in content or "architecture" in content):
        if required:
            raise DovitError(f"{file}: not timm's: it names no architecture")
        return TimmConfig(file, notes=(f"{file.name} is not timm's and was not used",))
    data = content.get("pretrained_cfg", content)
    arguments = content.get("model_args", {})
    if not isinstance(data, dict) or not isinstance(arguments, dict):
        raise DovitError(f"{file}: its pretrained_cfg and model_args must be objects; copy it again")
    name = str(content.get("architecture", ""))
    if "quickgelu" in name:
        raise DovitError(f"{file}: {name} has QuickGELU, and dovit's layers have GELU")
    for key, value in arguments.items():
        if key in PLAIN and value not in PLAIN[key]:
            raise DovitError(f"{file}: {key} is {value}, and dovit's layers are those of {PLAIN[key][0]}")
        if key not in PLAIN and key not in USED and key not in OTHER:
            raise DovitError(
                f"{file}: {key} is a setting whose effect dovit does not know; take it out where it has none"
            )
    return TimmConfig(
        file,
        arguments,
        _size(file, arguments.get("img_size")),
        _size(file, data["input_size"][1:] if isinstance(data.get("input_size"), list) else None),
        _channels(file, data, "mean"),
        _channels(file, data, "std"),
    )


def _size(file: Path, said: Any) -> tuple[int, int] | None:
    size = [said, said] if isinstance(said, int) else said
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise DovitError(f"{file}: its image size {size} is no height and width")
    return size[0], size[1]


def _channels(file: Path, data: dict[str, Any], name: str) -> tuple[str, tuple[float, float, float]] | None:
    values = data.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise DovitError(f"{file}: its {name} {values} is not three numbers from 0 to 1")
    return f"{file.name}: {name}", (255.0 * values[0], 255.0 * values[1], 255.0 * values[2])
