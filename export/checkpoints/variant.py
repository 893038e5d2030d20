"""rstrudel/segmenter's variant.yml: every setting that its code reads. What changes no result is known and passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from dovit.export.checkpoints.literals import parse_change, set_value
from dovit.export.model.config import Part
from dovit.runtime.errors import DovitError, describe_validation
from dovit.runtime.files import read_text

Normalization = Literal["vit", "deit"]


class Decoder(Part):
    """`mask_transformer`, or a name with `linear` in it. Dropout is for training."""

    name: str | None = None
    n_layers: int | None = None
    drop_path_rate: Any = None
    dropout: Any = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name != "mask_transformer" and "linear" not in name:
            raise ValueError(f"{name} is not read: mask_transformer and linear are")
        return name

    @property
    def kind(self) -> str | None:
        """The same by our name."""
        if self.name is None:
            return None
        return "segmenter-mask" if self.name == "mask_transformer" else "segmenter-linear"


class Net(Part):
    """The arguments of segmenter's `create_segmenter`. None: not said."""

    image_size: tuple[int, int] | None = None  # height, width in pixels
    patch_size: int | None = None
    d_model: int | None = None
    n_heads: int | None = Field(default=None, gt=0)
    n_layers: int | None = None
    n_cls: int | None = None
    channels: int | None = None
    normalization: Normalization | None = None
    distilled: bool | None = None
    backbone: str | None = None
    decoder: Decoder = Decoder()
    dropout: Any = None
    drop_path_rate: Any = None

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else size

    @field_validator("backbone")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        if name is not None and not name.startswith(("vit_", "deit_")):
            raise ValueError(f"{name} is no ViT or DeiT")
        return name


class Dataset(Part):
    """How the training set was read; an image is normalised by `normalization`."""

    normalization: Normalization | None = None
    dataset: Any = None
    image_size: Any = None
    crop_size: Any = None
    batch_size: Any = None
    split: Any = None
    num_workers: Any = None


class Inference(Part):
    """Sliding windows. `im_size` is the validation set's; segmenter's inference.py takes an image as it is."""

    window_size: int | None = Field(default=None, gt=0)
    window_stride: int | None = Field(default=None, gt=0)
    im_size: Any = None


class Variant(Part):
    """The whole file; the rest of it is for training."""

    net_kwargs: Net
    dataset_kwargs: Dataset = Dataset()
    inference_kwargs: Inference = Inference()
    world_batch_size: Any = None
    version: Any = None
    resume: Any = None
    algorithm_kwargs: Any = None
    optimizer_kwargs: Any = None
    amp: Any = None
    log_dir: Any = None


class _Loader(yaml.SafeLoader):
    """YAML's safe types and Python's tuple: segmenter writes `image_size` as one."""


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_variant(file: Path, changes: tuple[str, ...]) -> tuple[Variant, set[str]]:
    """The variant with `changes`, each `key=value`, over it; and the keys that they change. Raises DovitError or UsageError."""
    try:
        content = yaml.load(read_text(file), _Loader)
        if not isinstance(content, dict) or not isinstance(content.get("net_kwargs"), dict):
            raise TypeError("it has no net_kwargs")
    except FileNotFoundError:
        raise DovitError(
            f"{file}: missing; segmenter's checkpoints need the variant.yml that lies beside them (normalisation, heads, "
            f"window), or --config with its path"
        ) from None
    except (OSError, yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DovitError(f"{file}: not segmenter's variant.yml ({reason}); copy it again") from None
    told = dict(map(parse_change, changes))
    for key, value in told.items():
        set_value(content, key, value)
    try:
        return Variant.model_validate(content), set(told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise DovitError(
                f"{file}: {place} is a setting that segmenter does not have, so what it changes is unknown; take it out where it "
                f"changes nothing"
            ) from None
        raise DovitError(f"{file}: {describe_validation(error)}") from None
