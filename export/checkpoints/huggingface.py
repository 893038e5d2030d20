"""Hugging Face folders: config.json, the weights in one file or in shards, and preprocessor_config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dovit.export.checkpoints.family import Checkpoint
from dovit.export.checkpoints.literals import parse_change, set_value
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.pos_embed import check_bounds
from dovit.export.checkpoints.safe import read_file
from dovit.export.checkpoints.section import Section
from dovit.export.checkpoints.settings import Settings
from dovit.export.checkpoints.tensors import plain_tensors
from dovit.export.model.config import Activation
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.files import parse_json, read_text

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the second where the first is not there
INDEX = ".index.json"
MAX_SHARDS = 1000
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# keys that every configuration of transformers can have, and that change no result of a forward pass
GENERIC = (
    "model_type",
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "_commit_hash",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "return_dict",
    "use_return_dict",
    "output_attentions",
    "output_hidden_states",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "is_decoder",
    "gradient_checkpointing",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "use_cache",
    "torchscript",
    "finetuning_task",
    "task_specific_params",
)
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


def find_weights(folder: Path) -> list[Path]:
    """The files of weights in `folder`, shards in order. DovitError where there are none, or shards are missing."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / (name + INDEX)).is_file():
            return _shards(folder / (name + INDEX))
    if (folder / "adapter_config.json").is_file():
        raise DovitError(
            f"{folder}: an adapter (LoRA and the like), which holds changes to another model's weights: merge it into that "
            f"model (peft's merge_and_unload), save the result with save_pretrained, and give that folder"
        )
    raise DovitError(
        f"{folder}: holds no {' or '.join(WEIGHTS)}; give the folder that save_pretrained wrote, or a file"
    )


def _shards(index: Path) -> list[Path]:
    places = _json(index).get("weight_map")
    names = (
        sorted(set(places.values()))
        if isinstance(places, dict) and all(isinstance(n, str) for n in places.values())
        else []
    )
    if not names or len(names) > MAX_SHARDS or any(Path(name).name != name for name in names):
        raise DovitError(f"{index}: its weight_map names no files beside it; download it again")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise DovitError(
            f"{index.parent}: {len(missing)} of {len(names)} shards are missing ({missing[0]}, …); download them"
        )
    return [index.parent / name for name in names]


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Content and tensors of the weights in `folder`. Raises DovitError."""
    files = find_weights(folder)
    if len(files) == 1:
        content = read_file(files[0])
        nested = content.get("state_dict", content)
        return content, plain_tensors(files[0], nested if isinstance(nested, dict) else content)
    state: dict[str, Tensor] = {}
    for file in files:
        content = read_file(file)
        tensors = plain_tensors(file, content.get("state_dict", content))
        twice = sorted(state.keys() & tensors.keys())
        if twice:
            raise DovitError(f"{file}: the key {twice[0]} is in another shard as well; download the folder again")
        state |= tensors
    wanted = _json(_index_of(folder))["weight_map"].keys()
    if wanted != state.keys():
        odd = sorted(wanted ^ state.keys())
        raise DovitError(
            f"{folder}: the index and the shards differ in {len(odd)} keys ({odd[0]}, …); download it again"
        )
    return {"state_dict": state}, state


def _index_of(folder: Path) -> Path:
    return next(folder / (name + INDEX) for name in WEIGHTS if (folder / (name + INDEX)).is_file())


def _json(file: Path) -> dict[str, Any]:
    """The object in `file`. Raises DovitError."""
    try:
        content = parse_json(read_text(file))
    except FileNotFoundError:
        raise DovitError(f"{file}: missing; it belongs to the weights") from None
    except (OSError, ValueError) as error:
        raise DovitError(f"{file}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(content, dict):
        raise DovitError(f"{file}: holds a {type(content).__name__}, not settings; copy it again")
    return content


def read_model_type(checkpoint: Checkpoint) -> str | None:
    """`model_type` of the config.json in the folder or beside the file; None where there is none."""
    file = checkpoint.beside(CONFIG)
    if not file.is_file():
        return None
    found = _json(file).get("model_type")
    return found if isinstance(found, str) else None


def read_section(checkpoint: Checkpoint, options: ReadOptions, settings: Settings) -> Section:
    """The configuration with the changes of --set; `--config` names another file. Raises DovitError or UsageError."""
    file = options.config or checkpoint.beside(CONFIG)
    content = _json(file)
    changes = [parse_change(change) for change in options.changes if not change.startswith("head.")]
    for key, value in changes:
        set_value(content, key, value)
    section = Section(file, "", content, True, settings, frozenset(key for key, _ in changes), "transformers")
    section.ignore(*GENERIC)
    return section


def read_activation(section: Section, key: str, default: str) -> Activation:
    """An activation by its name in transformers. DovitError for one that dovit's layers lack."""
    name = section.choose(key, default)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise section.refusal(key, f"dovit's layers have {', '.join(ACTIVATIONS)}")
    return Activation.model_validate({"kind": ACTIVATIONS[name]})


def class_names(section: Section, classes: int) -> tuple[str, ...] | None:
    """Of `id2label`, where it has a name of its own for each class."""
    labels = section.get("id2label")
    if not isinstance(labels, dict) or len(labels) != classes:
        return None
    try:
        names = tuple(str(labels[str(number)]) for number in range(classes))
    except KeyError:
        return None
    return None if names == tuple(f"LABEL_{number}" for number in range(classes)) else names


@dataclass(frozen=True)
class Preprocessor:
    """preprocessor_config.json: (place, value) of each setting, None where it is not said. mean and std are RGB, 0…255.

    `split`: whether windows slide over an image of another size; `pad`: whether it keeps its aspect ratio and is padded."""

    image_size: tuple[str, tuple[int, int]] | None = None
    mean: tuple[str, tuple[float, ...]] | None = None
    std: tuple[str, tuple[float, ...]] | None = None
    split: tuple[str, bool] | None = None
    pad: bool = False
    notes: tuple[str, ...] = ()


# keys of image processors that change neither size nor values, or are their training's and their outputs'
PROCESSOR_OTHER = (
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "size",
    "crop_size",
    "rescale_factor",
    "image_mean",
    "image_std",
    "resample",
    "size_divisor",
    "input_data_format",
    "data_format",
    "return_tensors",
    "device",
    "default_to_square",
    "disable_grouping",
    "do_reduce_labels",
    "do_pad",
    "do_split_image",
    "ignore_index",
    "num_labels",
    "use_fast",
    "auto_map",
    "_processor_class",
    "_valid_processor_keys",
)


def read_preprocessor(checkpoint: Checkpoint, *, splits: bool = False) -> Preprocessor:
    """What lies in the folder or beside the file; nothing where there is no such file. Raises DovitError.

    `splits`: its do_pad and do_split_image mean what EoMT's do; otherwise they are refused."""
    file = checkpoint.beside(PREPROCESSOR)
    if not file.is_file():
        return Preprocessor(notes=(f"there is no {PREPROCESSOR}: mean and std are assumed",))
    content = _json(file)
    unknown = sorted(key for key in content if key not in PROCESSOR_OTHER and content[key] not in (None, False))
    if unknown:
        raise DovitError(
            f"{file}: {unknown[0]} is a setting whose effect dovit does not know; take it out where it has none"
        )
    if not splits and (content.get("do_pad") or content.get("do_split_image")):
        raise DovitError(
            f"{file}: do_pad and do_split_image are not done by dovit, which resizes images or slides over them"
        )

    def number(key: str, default: float) -> float:
        value = content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise DovitError(f"{file}: {key} is {value!r}, not a number above 0")
        return float(value)

    # (x · factor - mean) / std of x from 0 to 255
    factor = number("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    values: dict[str, tuple[str, tuple[float, ...]] | None] = {"image_mean": None, "image_std": None}
    for key in values:
        said = content.get(key)
        if content.get("do_normalize", True) is False:
            values[key] = (f"{PREPROCESSOR}: do_normalize", ((0.0 if key == "image_mean" else 1.0) / factor,) * 3)
        elif said is not None:
            said = [said] * 3 if isinstance(said, int | float) else said
            if not isinstance(said, list) or len(said) != 3 or not all(isinstance(v, int | float) for v in said):
                raise DovitError(f"{file}: {key} is {said!r}, not three numbers")
            values[key] = (f"{PREPROCESSOR}: {key}", tuple(v / factor for v in said))
    size, notes = _size(file, content), []
    if content.get("do_center_crop"):
        notes.append(f"{PREPROCESSOR} crops images at their centre; dovit resizes the whole image instead")
    if content.get("do_resize", True) and content.get("resample") not in (None, 2):
        notes.append(f"{PREPROCESSOR} resizes with resample {content['resample']} of Pillow; dovit resizes bilinearly")
    split, pad = content.get("do_split_image"), bool(content.get("do_pad"))
    if split:
        notes.append(
            f"{PREPROCESSOR} resizes an image's shorter side to the window's before it is split (do_split_image); dovit slides "
            f"over the image as it is: give it images of that height or width"
        )
    if pad:
        notes.append(
            f"{PREPROCESSOR} pads (do_pad), as for panoptic or instance segmentation; dovit adds the queries up to semantic "
            f"labels, which tell no instances apart, and pads with the mean colour"
        )
    place = f"{PREPROCESSOR}: do_split_image"
    return Preprocessor(
        size,
        values["image_mean"],
        values["image_std"],
        None if split is None else (place, bool(split)),
        pad,
        tuple(notes),
    )


def _size(file: Path, content: dict[str, Any]) -> tuple[str, tuple[int, int]] | None:
    cropped = bool(content.get("do_center_crop"))
    key = "crop_size" if cropped else "size"
    if not cropped and content.get("do_resize", True) is False:
        return None
    said = content.get(key)
    said = {"height": said, "width": said} if isinstance(said, int) else said
    if not isinstance(said, dict):
        return None
    height, width = (said.get(name, said.get("shortest_edge")) for name in ("height", "width"))
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise DovitError(f"{file}: {key} is {said!r}, not a height and a width")
    return f"{PREPROCESSOR}: {key}", (height, width)


def pick_size(
    options: ReadOptions,
    preprocessor: Preprocessor,
    stated: tuple[str, tuple[int, int] | None],
    settings: Settings,
    patch: int,
) -> tuple[int, int]:
    """The image size: of --image-size, of the preprocessor, of the configuration. UsageError unless it is whole patches."""
    size: tuple[int, int] = settings.choose(
        "image_size",
        option=("--image-size", options.image_size),
        file=preprocessor.image_size or (None if stated[1] is None else stated),
        remedy="say --image-size",
    )
    check_bounds(size, settings.chosen["image_size"].place)
    if any(side < patch or side % patch for side in size):
        raise UsageError(
            f"an image size of {size[0]}x{size[1]} ({settings.chosen['image_size'].place}) is not whole patches of {patch}: say "
            f"--image-size with multiples of {patch}"
        )
    return size
