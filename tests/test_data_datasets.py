"""Data sets of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from earmark.data import from_dataset
from earmark.errors import BadInput

PIXELS = torch.randint(256, (7, 3, 5, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
LABELS = [0, 2, 1, 1, 0, 2, 2]


class Shown(Dataset[Any]):
    """A map-style data set that shows each image and label in a given form, and ends with no IndexError."""

    def __init__(self, show: Callable[[Tensor, int], Any]) -> None:
        self.show = show

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, at: int) -> Any:
        return self.show(PIXELS[at % len(PIXELS)], LABELS[at % len(PIXELS)])


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(PIXELS, LABELS, strict=True))


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


FORMS: dict[str, Any] = {
    "PIL": Shown(lambda x, y: (pil(x), y)),
    "uint8 CHW": Shown(lambda x, y: (x, y)),
    "uint8 HWC": Shown(lambda x, y: (x.permute(1, 2, 0).numpy(), y)),
    "float CHW": Shown(lambda x, y: (x.float() / 255, torch.tensor(y))),
    "float HWC": Shown(lambda x, y: (x.permute(1, 2, 0).double().numpy() / 255, np.int64(y))),
    "with index": Shown(lambda x, y: (x, y, "more")),
    "Hugging Face": Shown(lambda x, y: {"image": pil(x), "label": y}),
    "Hugging Face CIFAR": Shown(lambda x, y: {"img": pil(x), "fine_label": y, "coarse": 0}),
    "Hugging Face tensors": Shown(lambda x, y: {"pixel_values": x.float() / 255, "labels": y}),
    "list": [(x, y) for x, y in zip(PIXELS, LABELS, strict=True)],
    "iterable": Streamed(),
    "loader": DataLoader(TensorDataset(PIXELS, torch.tensor(LABELS)), batch_size=3),
    "loader of dicts": DataLoader(Shown(lambda x, y: {"image": x.float() / 255, "label": y}), batch_size=2),
    "loader without batches": DataLoader(TensorDataset(PIXELS, torch.tensor(LABELS)), batch_size=None),
    "loader of an iterable": DataLoader(Streamed(), batch_size=4),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form: str) -> None:
    images = from_dataset(FORMS[form], name="x")
    assert torch.equal(images.pixels, PIXELS)
    assert images.labels.tolist() == LABELS
    assert (images.classes, images.name) == (3, "x")


def test_grey_images_get_their_channel() -> None:
    images = from_dataset([(Image.new("L", (4, 5), 7), 0), (Image.new("1", (4, 5), 1), 1)])
    assert images.pixels[:, 0, 0, 0].tolist() == [7, 255]
    assert images.shape == (1, 5, 4)


def test_the_data_set_may_say_how_many_classes_there_are() -> None:
    named, featured = Shown(lambda x, y: (x, y)), Shown(lambda x, y: (x, y))
    named.classes = ["a", "b", "c", "d"]  # type: ignore[attr-defined]
    featured.features = {"label": SimpleNamespace(num_classes=5)}  # type: ignore[attr-defined]
    assert from_dataset(named).classes == 4
    assert from_dataset(DataLoader(named, batch_size=3)).classes == 4
    assert from_dataset(featured).classes == 5
    assert from_dataset(named, classes=6).classes == 6


def test_random_transforms_and_shuffling_repeat_and_leave_the_global_state() -> None:
    def noisy(x: Tensor, y: int) -> tuple[Tensor, int]:
        return (x.float() / 255 * torch.rand(())).clamp(0, 1), y

    loader = DataLoader(Shown(noisy), batch_size=3, shuffle=True)
    before = torch.get_rng_state()
    one, other = from_dataset(loader), from_dataset(loader)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.pixels, other.pixels)
    assert one.labels.tolist() == other.labels.tolist() != LABELS


def test_a_cache_file_holds_the_pixels(tmp_path: Path) -> None:
    file = tmp_path / "pixels.npy"
    for form in ("PIL", "loader"):
        images = from_dataset(FORMS[form], cache=file)
        assert torch.equal(images.pixels, PIXELS)
        assert images.labels.tolist() == LABELS
        assert [path.name for path in tmp_path.iterdir()] == ["pixels.npy"]
    images.pixels[:] = 0
    assert torch.equal(torch.from_numpy(np.load(file)[:7]), PIXELS)


def test_a_cache_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not know its length"):
        from_dataset(FORMS["iterable"], cache=tmp_path / "x.npy")
    with pytest.raises(BadInput, match="cannot write"):
        from_dataset(FORMS["PIL"], cache=tmp_path / "missing" / "x.npy")
    broken = [*FORMS["list"][:3], (PIXELS[0, :, :2], 0)]
    with pytest.raises(BadInput, match="image 3 has the shape"):
        from_dataset(broken, cache=tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == []


def test_normalised_images_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        BadInput, match=r"0 to 1, got -1 to 2.*drop it and wrap the model with earmark\.models\.normalised"
    ):
        from_dataset([(torch.tensor([[[-1.0, 2.0]]]), 0)])


BROKEN: dict[str, tuple[list[Any], str]] = {
    "empty": ([], "is empty"),
    "no pair": ([PIXELS[0]], "expected a pair"),
    "no label": ([{"image": PIXELS[0], "name": "x"}], "has image, name"),
    "shapes": ([(PIXELS[0], 0), (PIXELS[0, :, :2], 1)], "image 1 has the shape"),
    "channels": ([(PIXELS[0], 0), (PIXELS[0, :1], 1)], "image 1 has the shape"),
    "label": ([(PIXELS[0], 0.5)], "one whole number"),
    "one hot": ([(PIXELS[0], [0, 1])], "one whole number|reshape"),
    "text": ([("image.png", 0)], "expected"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_labelled_image_is_named(what: str) -> None:
    elements, message = BROKEN[what]
    with pytest.raises(BadInput, match=message):
        from_dataset(elements)


def test_too_few_classes_are_an_error() -> None:
    with pytest.raises(BadInput, match="labels run from 0 to 2"):
        from_dataset(FORMS["PIL"], classes=2)
