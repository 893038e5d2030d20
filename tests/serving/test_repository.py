"""What dovit-serve writes, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from installed import require
from tritonclient.grpc import model_config_pb2

from dovit.runtime.bundle.open import open_bundle, read_manifest
from dovit.runtime.errors import DovitError
from dovit.serving import cli, repository
from dovit.serving.config import Serving, config_text
from dovit.serving.repository import add_model

Outcome = tuple[int, str, str]  # exit status, stdout, stderr
Serve = Callable[..., Outcome]


@pytest.fixture
def dovit_serve(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Serve:
    """In a folder with `engines/`; the model's name is street where no other is given."""
    shutil.copytree(bundle, tmp_path / "engines")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOVIT_DEBUG", raising=False)

    def call(*arguments: str, engine: str = "engines", name: str = "street") -> Outcome:
        flags = ["--engine", engine, "--repository", "models", "--name", name]
        monkeypatch.setattr(sys, "argv", ["dovit-serve", *flags, *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def read_config(model: Path) -> model_config_pb2.ModelConfig:
    """As Triton itself parses it."""
    return text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_bf16_for_another_cpu_is_noted(dovit_serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository is written: the server may be another machine."""
    require("openvino")
    monkeypatch.setattr(cli, "computes_bf16", lambda: True)
    assert dovit_serve("--precision", "bf16")[::2] == (0, "")
    monkeypatch.setattr(cli, "computes_bf16", lambda: False)
    status, _, err = dovit_serve("--precision", "bf16", "--version", "2", "--replace")
    assert status == 0 and err.startswith("dovit-serve: note: precision bf16: this CPU has no bf16 instructions")
    assert dovit_serve("--precision", "fp32", "--version", "3")[::2] == (0, "")


def test_a_repository_is_written(dovit_serve: Serve) -> None:
    status, out, err = dovit_serve("--instances", "2", "--threads", "1", "--max-batch", "4", "--queue-delay", "500")
    assert (status, err) == (0, "") and "2 instances on the CPU, batches of up to 4" in out
    model = Path("models/street")
    config = read_config(model)
    manifest = open_bundle("engines").manifest
    assert (config.name, config.backend, config.max_batch_size) == ("street", "python", 4)
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert config.version_policy.latest.num_versions == 1
    shapes = {tensor.name: list(tensor.dims) for tensor in [*config.input, *config.output]}
    decisions = len(manifest.decisions)
    maps = [-1, decisions, *manifest.grid]
    assert shapes["image"] == [-1, -1, 3] and shapes["kept"] == [decisions]
    assert shapes["keep_maps"] == shapes["confidence_maps"] == maps and shapes["logits"] == [manifest.classes, -1, -1]
    assert {key: value.string_value for key, value in config.parameters.items()} == {"backend": "auto", "threads": "1"}
    assert list(config.model_warmup[0].inputs["image"].dims) == [*manifest.image_size, 3]
    assert open_bundle(model / "1" / "bundle").manifest == manifest
    assert sorted(os.listdir("models")) == ["street"] and sorted(os.listdir(model)) == ["1", "config.pbtxt"]


def test_gpus_are_instance_groups(dovit_serve: Serve) -> None:
    assert dovit_serve("--backend", "tensorrt-rtx", "--gpus", "0,2", "--instances", "3", "--json")[0] == 0
    (group,) = read_config(Path("models/street")).instance_group
    assert (group.count, list(group.gpus), group.kind) == (3, [0, 2], model_config_pb2.ModelInstanceGroup.KIND_GPU)


def test_a_bundle_without_decisions_has_no_tensors_of_decisions(plain_bundle: Path, tmp_path: Path) -> None:
    add_model(plain_bundle, tmp_path / "models", "plain", Serving(warm_up=False))
    config = read_config(tmp_path / "models" / "plain")
    assert [tensor.name for tensor in config.input] == ["image", "encoded", "mode"]
    assert [tensor.name for tensor in config.output] == ["labels", "logits"] and not config.model_warmup


def test_versions_stand_side_by_side(dovit_serve: Serve) -> None:
    assert dovit_serve()[0] == 0
    before = tree(Path("models"))
    status, _, err = dovit_serve()
    assert status == 2 and "version 1 is there: give --version 2 to add one, --replace to replace it" in err
    assert tree(Path("models")) == before
    assert dovit_serve("--version", "2", "--versions", "2")[0] == 0
    assert sorted(os.listdir("models/street")) == ["1", "2", "config.pbtxt"]
    assert read_config(Path("models/street")).version_policy.latest.num_versions == 2
    (Path("models/street/1/bundle") / "bundle.json").unlink()
    shutil.rmtree("models/street/2")
    assert dovit_serve("--replace")[0] == 0
    assert open_bundle("models/street/1/bundle").manifest == open_bundle("engines").manifest


def test_a_version_with_other_outputs_is_refused(dovit_serve: Serve, plain_bundle: Path) -> None:
    assert dovit_serve()[0] == 0
    before = tree(Path("models"))
    status, _, err = dovit_serve("--version", "2", engine=str(plain_bundle))
    assert status == 2 and "version 1 has other classes, decisions or patches" in err and "another --name" in err
    assert tree(Path("models")) == before


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "ä", "x" * 201])
def test_invalid_names_are_refused(dovit_serve: Serve, name: str) -> None:
    status, _, err = dovit_serve(name=name)
    assert status == 2 and "--name" in err and err.count("\n") == 1
    assert not Path("models").exists()


def test_what_is_not_ours_stays(dovit_serve: Serve) -> None:
    Path("models/street/1").mkdir(parents=True)
    Path("models/street/config.pbtxt").write_text('name: "street"\n')
    before = tree(Path("models"))
    for flags in ([], ["--replace"], ["--version", "2"]):
        status, _, err = dovit_serve(*flags)
        assert status == 2 and "was not written by dovit-serve" in err
    assert tree(Path("models")) == before


def test_folders_that_are_no_bundle_are_refused(dovit_serve: Serve) -> None:
    Path("empty").mkdir()
    for engine in ("empty", "missing"):
        status, _, err = dovit_serve(engine=engine)
        assert status == 1 and "not a dovit bundle" in err and not Path("models").exists()
    Path("models").write_text("a file")
    status, _, err = dovit_serve()
    assert status == 2 and "models is a file: give --repository a folder" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gpus", "0"], "--gpus 0 is for --backend tensorrt"),
        (["--repository", "models.zip"], "--repository models.zip"),
        (["--backend", "tensorrt", "--gpus", "0,0"], "the number of each GPU once"),
        (["--version", "0"], "version 0: Triton's versions are whole numbers from 1"),
        (["--site-packages", "nowhere"], "nowhere: no such folder"),
        (["--max-batch", "0"], "--max-batch"),
    ],
)
def test_wrong_options_are_refused(dovit_serve: Serve, arguments: list[str], sentence: str) -> None:
    status, _, err = dovit_serve(*arguments)
    assert status == 2 and sentence in err and not Path("models").exists()


def test_a_full_disk_changes_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_model(bundle, tmp_path / "models", "street", Serving())
    before = tree(tmp_path / "models")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(repository, "write_manifest", full)
    for version, replace in ((2, False), (1, True)):
        with pytest.raises(DovitError, match="models: the disk is full; free some space and try again"):
            add_model(bundle, tmp_path / "models", "street", Serving(), version=version, replace=replace)
        assert tree(tmp_path / "models") == before
    with pytest.raises(DovitError, match="the disk is full"):
        add_model(bundle, tmp_path / "new", "street", Serving())
    assert not (tmp_path / "new").exists()


def versions(bundle: Path, models: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A model in `models` and in another repository, and what is to replace it; they differ in each file but the bundle's."""
    for place, packages, how in ((models, "/old", Serving()), (models.with_name("new"), "/new", Serving(instances=2))):
        add_model(bundle, place, "street", how, site_packages=[Path(packages)])
    return tree(models / "street"), tree(models.with_name("new") / "street")


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("call", range(3))
def test_an_interrupt_or_error_changes_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, done: bool
) -> None:
    """An error before each of the renames that put a version into place, and an interrupt right after each."""
    models, calls = tmp_path / "models", []
    before, after = versions(bundle, models)

    def failing(move: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def act(source: Path, target: Path) -> None:
            calls.append(target)
            if len(calls) != call + 1:
                return move(source, target)
            if not done:
                raise OSError(errno.EIO, "Input/output error")
            move(source, target)
            raise KeyboardInterrupt

        return act

    for name in ("rename", "replace"):
        monkeypatch.setattr(repository.os, name, failing(getattr(os, name)))
    with pytest.raises(KeyboardInterrupt if done else DovitError):
        add_model(bundle, models, "street", Serving(instances=2), replace=True, site_packages=[Path("/new")])
    assert tree(models / "street") == (after if done and call == 2 else before)
    assert os.listdir(models) == ["street"]


KILLED = """
import os, sys
from pathlib import Path
from dovit.serving.config import Serving
from dovit.serving.repository import add_model
left = int(sys.argv[3])
def counted(move):
    def act(source, target):
        global left
        if not left:
            os._exit(9)
        left -= 1
        move(source, target)
    return act
os.rename, os.replace = counted(os.rename), counted(os.replace)
add_model(Path(sys.argv[1]), Path(sys.argv[2]), "street", Serving(instances=2), replace=True, site_packages=[Path("/new")])
"""


@pytest.mark.parametrize("call", range(3))
def test_a_killed_process_leaves_the_old_model_or_the_new_one(bundle: Path, tmp_path: Path, call: int) -> None:
    """When the next command has begun: Triton never sees a version with the configuration of another for long."""
    models = tmp_path / "models"
    before, after = versions(bundle, models)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(bundle), str(models), str(call)], timeout=120)
    assert killed.returncode == 9 and tree(models / "street") != after
    add_model(bundle, models, "other", Serving())
    assert tree(models / "street") == (after if call == 2 else before)
    assert sorted(os.listdir(models)) == ["other", "street"]


def test_a_foreign_bundle_writes_no_configuration(bundle: Path) -> None:
    manifest = read_manifest(bundle).model_copy(
        update={"architecture": 'x\nparameters { key: "EXECUTION_ENV_PATH" }\r#'}
    )
    lines = config_text("street", manifest, Serving()).splitlines()
    assert not any(line.startswith("parameters { key") for line in lines)


def test_what_a_killed_process_left_is_removed(bundle: Path, tmp_path: Path) -> None:
    left = tmp_path / "models" / f"{repository.STAGE_PREFIX}00000000"
    (left / "1").mkdir(parents=True)
    add_model(bundle, tmp_path / "models", "street", Serving())
    assert os.listdir(tmp_path / "models") == ["street"]


def test_json_says_what_was_written(dovit_serve: Serve) -> None:
    row = json.loads(dovit_serve("--json")[1])
    assert row["model"] == "models/street" and "labels" in row["outputs"] and "image" in row["inputs"]
    assert row["start"].startswith("tritonserver --model-repository=/")
