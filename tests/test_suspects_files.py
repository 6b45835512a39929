"""Models in files of other libraries: ONNX and Transformers checkpoints, against the same computation in PyTorch."""

from __future__ import annotations

import builtins
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from serving import minted
from torch import Tensor

from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import TriggerSet
from earmark.suspects import Checkpoint, ClassNames, OnnxModel, open_suspect
from earmark.verify import TriggerTest

KEY = MarkKey(bytes(range(32)))
MARK = minted(KEY)
Dims = Sequence[int | str]


def solved(mark: TriggerSet) -> Tensor:
    """Weights (pixels, K) of a linear model that answers these triggers with their labels."""
    flat = mark.images.flatten(1).double() / 255
    weights: Tensor = torch.linalg.pinv(flat) @ torch.nn.functional.one_hot(mark.labels, mark.classes).double()
    return weights.float()


def saved(
    path: Path,
    weights: Tensor,
    dims: Dims,
    *,
    kind: int = TensorProto.FLOAT,
    head: str = "scores",
    extra: bool = False,
) -> Path:
    """A linear model as an ONNX file: cast, flatten, multiply, and what `head` says."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0),
    ]
    classes = weights.shape[1]
    told = {
        "scores": helper.make_tensor_value_info("scores", TensorProto.FLOAT, [dims[0], classes]),
        "labels": helper.make_tensor_value_info("labels", TensorProto.INT64, [dims[0]]),
        "flat": helper.make_tensor_value_info("flat", TensorProto.FLOAT, [dims[0], "pixels"]),
    }
    inputs = [helper.make_tensor_value_info("image", kind, list(dims))]
    if extra:
        inputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    outputs = [told[name] for name in head.split("+")]
    initial = [numpy_helper.from_array(weights.numpy(), "weights")]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("dims", [("n", 1, 6, 6), (1, 1, 6, 6), (7, 1, 6, 6), ("n", 6, 6, 1), (None, 1, "h", "w")])
@pytest.mark.parametrize("head", ["scores", "labels", "scores+labels"])
def test_an_onnx_file_answers_as_the_same_model_does(tmp_path: Path, dims: Dims, head: str) -> None:
    path = saved(tmp_path / "net.onnx", solved(MARK), [dim or "n" for dim in dims], head=head)
    suspect = open_suspect(f"onnx:{path}", MARK)
    images = MARK.images.float() / 255
    if head == "labels":
        assert suspect(images).tolist() == MARK.labels.tolist()
    else:
        torch.testing.assert_close(suspect(images).float(), images.flatten(1) @ solved(MARK), rtol=1e-4, atol=1e-4)
    verdict = TriggerTest()(suspect, MARK)
    assert (verdict.accepted, verdict.details["scores"]) == (True, head != "labels")
    assert verdict.details["suspect"]["kind"] == "onnx"


def test_an_onnx_file_of_another_size_range_or_type_gets_what_it_takes(tmp_path: Path) -> None:
    weights = solved(MARK) / 255
    path = saved(tmp_path / "u8.onnx", weights, ("n", 1, 6, 6), kind=TensorProto.UINT8)
    assert TriggerTest()(OnnxModel(path, 10), MARK).statistic == 24
    path = saved(tmp_path / "top.onnx", weights, ("n", 1, 6, 6))
    assert TriggerTest()(OnnxModel(path, 10, top=255), MARK).statistic == 24
    large = saved(tmp_path / "large.onnx", torch.eye(3 * 144)[:, :10].contiguous(), ("n", 3, 12, 12))
    suspect = OnnxModel(large, 10, mean=[0.5], std=[0.5])
    assert suspect(torch.ones(2, 1, 6, 6)).tolist() == [[1.0] * 10] * 2
    assert suspect.facts["size"] == [12, 12]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"dims": ("n", 36)}, "expected one input of images with four dimensions"),
        ({"extra": True}, "expected one input of images with four dimensions"),
        ({"kind": TensorProto.INT64}, "expected one input of images"),
        ({"dims": ("n", 5, 6, 6)}, "5 channels"),
        ({"dims": ("n", 3, 6, 3)}, "may be nchw or nhwc; say which with layout="),
        ({"head": "scores+flat"}, "name it with output="),
        ({"classes": 7}, "scores for 10 classes or a label an image"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_one_clear_error(tmp_path: Path, how: dict[str, Any], words: str) -> None:
    how = {**how}
    dims = how.pop("dims", ("n", 1, 6, 6))
    weights = torch.zeros(math.prod(dims[1:]), how.pop("classes", 10))
    path = saved(tmp_path / "net.onnx", weights, dims, **how)
    with pytest.raises(BadInput, match=words):
        open_suspect(f"onnx:{path}", MARK)


def test_a_file_that_is_no_onnx_model_and_an_output_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="is no ONNX model that onnxruntime can load"):
        open_suspect(f"onnx:{tmp_path / 'junk.onnx'}", MARK)
    path = saved(tmp_path / "net.onnx", solved(MARK), ("n", 1, 6, 6), head="scores+flat")
    assert TriggerTest()(OnnxModel(path, 10, output="scores"), MARK).accepted is True
    with pytest.raises(BadInput, match=r"unknown output of .*'score': did you mean 'scores'"):
        OnnxModel(path, 10, output="score")
    with pytest.raises(BadInput, match="takes grey images and the mark's have 3 channels"):
        OnnxModel(path, 10, output="scores")(torch.zeros(1, 3, 6, 6))


# --------------------------------------------------------------------------------------------------------- Transformers


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small ResNet with a processor that resizes to 20 and normalises."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf") / "net"
    names = {0: "cat", 1: "dog", 2: "fox", 3: "elk"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8],
            depths=[1, 1],
            id2label=names,
            label2id={n: i for i, n in names.items()},
        )
        model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(
        size={"height": 20, "width": 20}, image_mean=[0.2, 0.3, 0.4], image_std=[0.5, 0.6, 0.7], resample=0
    ).save_pretrained(folder)
    return folder, model


def test_a_checkpoint_answers_with_its_own_processors_size_and_normalisation(checkpoint: tuple[Path, Any]) -> None:
    folder, model = checkpoint
    pixels = torch.randint(0, 256, (5, 3, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    suspect = Checkpoint(folder, 4, batch=2)
    doubled = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3).float() / 255
    mean, std = torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        expected = model((doubled - mean) / std).logits
    torch.testing.assert_close(suspect(pixels.float() / 255).float(), expected, rtol=1e-3, atol=1e-4)
    assert suspect.facts["kind"] == "transformers"
    assert suspect(torch.zeros(1, 1, 10, 10)).shape == (1, 4)


def test_a_checkpoints_class_names_are_mapped_to_the_task(checkpoint: tuple[Path, Any]) -> None:
    folder, _ = checkpoint
    images = torch.zeros(1, 3, 10, 10)
    plain = torch.softmax(Checkpoint(folder, 4)(images), 1)[0]
    names = ClassNames({"dog": 0, "cat": 1, "fox": 1})
    mapped = open_suspect(f"transformers:{folder}", minted(KEY, classes=2), names=names)(images).exp()[0]
    torch.testing.assert_close(mapped, torch.stack([plain[1], plain[0] + plain[2]]))
    with pytest.raises(BadInput, match="none of the names is one of"):
        Checkpoint(folder, 4, names=ClassNames({"cow": 0}))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"\xff" * 50),
        ("model.safetensors", b""),
        ("config.json", b'{"model_type": "resnet", "hidden_sizes": [], "depths": []}'),
        ("config.json", b'{"model_type": "resnet", "id2label": [1]}'),
        ("config.json", b'{"model_type": "resnet", "depths": "x"}'),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_one_clear_error(
    checkpoint: tuple[Path, Any], file: str, content: bytes, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint[0], broken)
    (broken / file).write_bytes(content)
    with pytest.raises(BadInput, match="no image classifier that Transformers can load"):
        open_suspect(f"transformers:{broken}", MARK)


def test_a_folder_without_safetensors_or_processor_is_one_clear_error(
    checkpoint: tuple[Path, Any], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"has no config\.json"):
        open_suspect(f"transformers:{tmp_path}", MARK)
    (tmp_path / "config.json").write_bytes((checkpoint[0] / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadInput, match="has no weights as safetensors"):
        open_suspect(f"transformers:{tmp_path}", MARK)
    (tmp_path / "model.safetensors").write_bytes((checkpoint[0] / "model.safetensors").read_bytes())
    with pytest.raises(BadInput, match="is no image classifier that Transformers can load"):
        open_suspect(f"transformers:{tmp_path}", MARK)


@pytest.mark.parametrize(
    ("module", "text", "extra"),
    [("onnxruntime", "onnx:x.onnx", "onnx"), ("httpx", "http://host/v2/models/x", "http")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    module: str, text: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    genuine = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == module:
            raise ImportError(name)
        return genuine(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    assert builtins.__import__ is not without
    with pytest.raises(BadInput, match=rf"needs {module}; install it with pip install 'earmark\[{extra}\]'"):
        open_suspect(text, MARK)


def test_scores_of_half_precision_come_back_as_numbers() -> None:
    from earmark.suspects.answers import answers_of

    (answer,) = answers_of(torch.from_numpy(np.array([[0.5, 0.25]], np.float16)), 1)
    assert answer.scores == (0.5, 0.25)
