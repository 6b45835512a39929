from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import nn

from earmark.core import rng
from earmark.errors import BadInput
from earmark.files import model_digest, save_tensors
from earmark.suspects import load_model

CODE = """
from dataclasses import dataclass
from torch import nn
from sizes_beside_nets import FEATURES

@dataclass
class Settings:
    classes: int = 3

def small(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, Settings(classes).classes))

def norm() -> nn.Module:
    return nn.BatchNorm2d(3)

def number() -> int:
    return 7

class Tied(nn.Module):
    def __init__(self, tied: str) -> None:
        super().__init__()
        self.code, self.back, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        shared = {"same": lambda w: w, "transposed": lambda w: w.t(), "part": lambda w: w[1:]}
        self.back.weight = nn.Parameter(shared[tied](self.code.weight))

def tied(tied: str = "same") -> nn.Module:
    return Tied(tied)

def anything(**sizes: int) -> nn.Module:
    return small(sizes["klasses"])

def broken() -> nn.Module:
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "sizes_beside_nets.py").write_text("FEATURES = 4\n")
    return tmp_path / "nets.py"


@pytest.fixture
def weights(nets: Path) -> dict[str, torch.Tensor]:
    return {k: torch.full_like(v, 0.5) for k, v in load_model(f"{nets}:small").state_dict().items()}


def altered(model: nn.Module) -> nn.Module:
    """Weights that no new model of the kind begins with."""
    with torch.no_grad():
        model.get_parameter("code.weight").normal_(generator=rng(1))
    return model


def test_a_file_and_its_neighbours_build_the_model(nets: Path) -> None:
    model = load_model(f"{nets}:small", classes=5)
    assert isinstance(model, nn.Module)
    assert model(torch.rand(2, 4)).shape == (2, 5)
    assert str(nets.parent) not in sys.path


def test_a_package_builds_the_model() -> None:
    assert load_model("earmark.models:PlainCNN", shape=(1, 8, 8), classes=10)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_module_is_found_in_the_working_folder(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets.rename(nets.with_name("nets_in_the_working_folder.py"))
    monkeypatch.chdir(nets.parent)
    assert isinstance(load_model("nets_in_the_working_folder:small"), nn.Module)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_fill_the_model(nets: Path, weights: dict[str, torch.Tensor], suffix: str) -> None:
    file = nets.with_suffix(suffix)
    save_tensors(file, weights) if suffix == ".safetensors" else torch.save(weights, file)
    model = load_model(f"{nets}:small", file)
    assert all(bool((p == 0.5).all()) for p in model.parameters())


def test_loading_twice_gives_equal_models_and_no_shared_weights(nets: Path, weights: dict[str, torch.Tensor]) -> None:
    save_tensors(nets.with_suffix(".safetensors"), weights)
    one, two = (load_model(f"{nets}:small", nets.with_suffix(".safetensors")) for _ in range(2))
    assert model_digest(one) == model_digest(two)
    assert next(one.parameters()).data_ptr() != next(two.parameters()).data_ptr()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nets", "expected 'package.module:function' or 'file.py:function', got 'nets'"),
        ("nets.py:", "expected 'package.module:function'"),
        (":small", "expected 'package.module:function'"),
        ("gone.py:small", "gone.py is not there"),
        ("no_such_package.nets:small", "cannot import no_such_package.nets: ModuleNotFoundError"),
        ("nets.py:smal", "did you mean 'small'"),
        ("nets.py:FEATURES", "unknown function in .*'FEATURES'"),
        ("nets.py:number", "returned int, expected an nn.Module"),
        ("nets.py:broken", "broken failed: RuntimeError: no such layer"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(
    nets: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(nets.parent)
    with pytest.raises(BadInput, match=said):
        load_model(name)


def test_a_file_that_does_not_import_says_why(nets: Path) -> None:
    nets.write_text("import")
    with pytest.raises(BadInput, match=r"cannot import .*nets\.py: SyntaxError"):
        load_model(f"{nets}:small")


def test_a_file_that_exits_is_an_error_and_no_end(nets: Path) -> None:
    nets.write_text("import sys\n\ndef leave():\n    sys.exit(0)\n")
    with pytest.raises(BadInput, match="leave failed: SystemExit"):
        load_model(f"{nets}:leave")
    nets.write_text("raise SystemExit(0)\n")
    with pytest.raises(BadInput, match=r"cannot import .*nets\.py: SystemExit"):
        load_model(f"{nets}:leave")


def test_an_unknown_argument_is_named_with_the_nearest_known_one(nets: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown argument of .*nets\.py:small 'klasses': did you mean 'classes'\?"):
        load_model(f"{nets}:small", klasses=3)
    assert load_model(f"{nets}:anything", klasses=7)(torch.rand(1, 4)).shape == (1, 7)


@pytest.mark.parametrize("tied", ["same", "part"])
def test_tied_weights_that_safetensors_wrote_once_fill_the_model(nets: Path, tied: str) -> None:
    file = nets.with_suffix(".safetensors")
    saved = altered(load_model(f"{nets}:tied", tied=tied))
    save_model(saved, str(file))
    assert len({"code.weight", "back.weight"} & load_file(file).keys()) == 1
    assert model_digest(load_model(f"{nets}:tied", file, tied=tied)) == model_digest(saved)


@pytest.mark.parametrize("tied", ["same", "transposed"])
@pytest.mark.parametrize("left_out", ["code.weight", "back.weight"])
def test_either_of_two_tied_weights_fills_both(nets: Path, tied: str, left_out: str) -> None:
    file = nets.with_suffix(".safetensors")
    saved = altered(load_model(f"{nets}:tied", tied=tied))
    save_tensors(file, {name: value for name, value in saved.state_dict().items() if name != left_out})
    loaded = load_model(f"{nets}:tied", file, tied=tied)
    assert model_digest(loaded) == model_digest(saved)
    assert loaded.get_parameter("back.weight").data_ptr() == loaded.get_parameter("code.weight").data_ptr()


@pytest.mark.parametrize("left_out", ["other.weight", "code.bias", "code.weight"])
def test_what_nothing_in_the_file_fills_is_still_missed(nets: Path, left_out: str) -> None:
    """`code.weight` is shared with a part of itself alone, and the part does not fill it."""
    file = nets.with_suffix(".safetensors")
    state = load_model(f"{nets}:tied", tied="part").state_dict()
    save_tensors(file, {name: value for name, value in state.items() if name != left_out})
    with pytest.raises(BadInput, match=f"does not fit the model: missing {left_out}; give"):
        load_model(f"{nets}:tied", file, tied="part")


def test_neither_of_two_tied_weights_in_the_file_is_a_fault(nets: Path) -> None:
    file = nets.with_suffix(".safetensors")
    state = load_model(f"{nets}:tied").state_dict()
    save_tensors(file, {name: value for name, value in state.items() if "weight" not in name} | {"x": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"missing back\.weight, code\.weight, other\.weight; unexpected x"):
        load_model(f"{nets}:tied", file)


def test_weights_that_do_not_fit_are_compared_by_name_and_shape(nets: Path, weights: dict[str, torch.Tensor]) -> None:
    file = nets.with_suffix(".safetensors")
    other = {"1.weight": torch.zeros(9, 4), **{f"extra.{i}": torch.zeros(1) for i in range(5)}}
    save_tensors(file, other)
    with pytest.raises(BadInput) as error:
        load_model(f"{nets}:small", file)
    assert str(error.value) == (
        "nets.safetensors does not fit the model: missing 1.bias; unexpected extra.0, extra.1, extra.2 and 2 more; "
        "wrong shape 1.weight (9, 4) for (3, 4); give the weights of this very architecture, or name theirs"
    )


def test_a_missing_buffer_is_not_forgiven(nets: Path) -> None:
    file = nets.with_suffix(".safetensors")
    save_tensors(file, {k: v for k, v in nn.BatchNorm2d(3).state_dict().items() if k != "running_var"})
    with pytest.raises(BadInput, match="missing running_var"):
        load_model(f"{nets}:norm", file)


def test_a_weight_file_that_would_run_code_is_refused(nets: Path) -> None:
    torch.save(nn.Linear(4, 3), nets.with_suffix(".pt"))
    with pytest.raises(BadInput, match="more than plain tensors"):
        load_model(f"{nets}:small", nets.with_suffix(".pt"))


def test_a_list_of_tensors_by_number_is_no_state_dict(nets: Path) -> None:
    torch.save({0: torch.zeros(3), "1.bias": torch.zeros(3)}, nets.with_suffix(".pt"))
    with pytest.raises(BadInput, match="holds no state dict"):
        load_model(f"{nets}:small", nets.with_suffix(".pt"))
