"""Readers of files: digits, IDX, folders, npz, and the split."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from earmark.core import MOST_CLASSES, Images
from earmark.data import digits, folder, idx, npz, open_data, split
from earmark.errors import BadInput

# --------------------------------------------------------------------------------------------------- digits and split


def test_digits_are_the_same_on_every_machine() -> None:
    data = digits()
    content = b"".join(
        part.pixels.numpy().tobytes() + part.labels.numpy().tobytes() for part in (data.train, data.test)
    )
    assert (len(data.train), len(data.test), data.shape, data.classes) == (1438, 359, (1, 8, 8), 10)
    assert data.train.name == "digits"
    assert hashlib.sha256(content).hexdigest() == "ec12687d9145cfa418a77275440f84a535bf4d49e34d01d6c9355f0591167e71"


def test_digits_use_the_whole_range() -> None:
    pixels = digits().train.pixels
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    assert len(set(pixels.flatten().tolist())) == 17


def some(labels: list[int], classes: int = 3) -> Images:
    pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Images(pixels, torch.tensor(labels), classes)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_a_split_loses_nothing_and_keeps_every_class_on_both_sides(share: float) -> None:
    images = some([0] * 10 + [1] * 5 + [2] * 2)
    data = split(images, share)
    both = torch.cat([data.train.pixels, data.test.pixels])[:, 0, 0, 0]
    assert sorted(both.tolist()) == list(range(17))
    for part in (data.train, data.test):
        assert set(part.labels.tolist()) == {0, 1, 2}
        assert part.pixels[:, 0, 0, 0].tolist() == sorted(part.pixels[:, 0, 0, 0].tolist())
    assert int((data.test.labels == 0).sum()) == min(max(round(share * 10), 1), 9)


def test_a_split_depends_on_its_seed_alone() -> None:
    images = some([0, 1, 2] * 20)
    one, same, other = split(images, seed=1), split(images, seed=1), split(images, seed=2)
    assert torch.equal(one.test.pixels, same.test.pixels)
    assert not torch.equal(one.test.pixels, other.test.pixels)


def test_a_class_that_cannot_be_on_both_sides_is_named() -> None:
    with pytest.raises(BadInput, match="class 1 has 1 images"):
        split(some([0, 0, 1, 2, 2]))
    with pytest.raises(BadInput, match="class 2 has 0 images"):
        split(some([0, 0, 1, 1]))
    with pytest.raises(BadInput, match="between 0 and 1"):
        split(some([0, 0, 1, 1, 2, 2]), test_share=1)


# ----------------------------------------------------------------------------------------------------------------- IDX


def idx_bytes(array: Tensor) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.to(torch.uint8).numpy().tobytes()


def write_idx(place: Path, packed: bool) -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (6, 5, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    for part, tensor in (("images-idx3", images), ("labels-idx1", labels)):
        for side in ("train", "t10k"):
            content = idx_bytes(tensor)
            name = f"{side}-{part}-ubyte"
            if packed:
                (place / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (place / name).write_bytes(content)
    return images, labels


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_plain_and_packed(tmp_path: Path, packed: bool) -> None:
    images, labels = write_idx(tmp_path, packed)
    data = open_data(f"idx:{tmp_path}")
    assert torch.equal(data.test.pixels, images[:, None])
    assert torch.equal(data.train.labels, labels)
    assert (data.classes, data.train.name) == (3, tmp_path.name)
    assert idx(tmp_path, classes=7).classes == 7


def damage(content: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "cut": content[:-1],
        "long": content + b"\0",
        "magic": b"\1" + content[1:],
        "floats": content[:2] + b"\x0d" + content[3:],
        "rank": content[:3] + b"\2" + content[4:],
        "huge": content[:4] + b"\xff" * 12 + content[16:],
        "none": content[:4] + bytes(12) + content[16:],
    }[how]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", ["empty", "cut", "long", "magic", "floats", "rank", "huge", "none"])
def test_a_damaged_idx_file_is_named(tmp_path: Path, how: str, packed: bool) -> None:
    images, _ = write_idx(tmp_path, packed)
    content = damage(idx_bytes(images), how)
    file = tmp_path / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(BadInput, match="train-images-idx3-ubyte"):
        idx(tmp_path)


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_a_damaged_gzip_stream_is_named(tmp_path: Path, cut: int) -> None:
    write_idx(tmp_path, packed=True)
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(BadInput, match=r"t10k-labels-idx1-ubyte\.gz"):
        idx(tmp_path)


def test_missing_idx_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file train-images\*"):
        idx(tmp_path)


def test_idx_labels_and_images_of_different_number_are_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(torch.tensor([0, 1])))
    with pytest.raises(BadInput, match="labels"):
        idx(tmp_path)


# -------------------------------------------------------------------------------------------------------------- folder


def picture(at: Path, level: int, mode: str = "L", size: tuple[int, int] = (6, 4)) -> None:
    """`size` is (width, height), as pillow has it."""
    at.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(at)


def write_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), mode: str = "L") -> None:
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            for i in range(3):
                picture(root / part / name / f"{i}.png", 100 * label + i, mode)


def test_a_folder_gives_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets")
    data = open_data(f"folder:{tmp_path / 'pets'}")
    assert (data.shape, data.classes, data.train.name) == ((1, 4, 6), 2, "pets")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]


def test_one_colour_file_makes_all_colour(tmp_path: Path) -> None:
    write_folder(tmp_path)
    picture(tmp_path / "test" / "dog" / "2.png", 102, "RGB")
    assert folder(tmp_path).shape == (3, 4, 6)


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "LA"])
def test_every_eight_bit_mode_is_read(tmp_path: Path, mode: str) -> None:
    write_folder(tmp_path)
    suffix = "tif" if mode == "CMYK" else "png"
    picture(tmp_path / "train" / "cat" / f"x.{suffix}", 255, mode)
    assert int(folder(tmp_path).train.pixels[3].min()) == 255


def test_a_folder_without_a_test_part_is_split(tmp_path: Path) -> None:
    write_folder(tmp_path, parts=("",))
    data = folder(tmp_path, test_share=1 / 3)
    assert (len(data.train), len(data.test)) == (4, 2)
    assert data.test.labels.tolist() == [0, 1]


def kept(root: Path) -> Path:
    return root.parent / f"{root.name}.earmark.safetensors"


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "pets"
    write_folder(root)
    first = folder(root)
    monkeypatch.setattr(Image, "open", lambda _: pytest.fail("decoded again"))
    again = folder(root)
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert torch.equal(first.test.labels, again.test.labels)


@pytest.mark.parametrize("what", ["content", "time", "new", "gone"])
def test_a_changed_file_makes_the_kept_pixels_stale(tmp_path: Path, what: str) -> None:
    root = tmp_path / "pets"
    write_folder(root)
    folder(root)
    file = root / "train" / "cat" / "0.png"
    if what == "gone":
        file.unlink()
    elif what == "new":
        picture(root / "train" / "cat" / "9.png", 9)
    else:
        picture(file, 77, size=(6, 4))
        os.utime(file, ns=(0, 5))
    state = kept(root).read_bytes()
    pixels = folder(root).train.pixels[:, 0, 0, 0].tolist()
    assert kept(root).read_bytes() != state
    assert pixels == [*{"gone": [1, 2], "new": [0, 1, 2, 9]}.get(what, [77, 1, 2]), 100, 101, 102]


def test_a_damaged_store_of_pixels_is_made_again(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    write_folder(root)
    good = folder(root)
    kept(root).write_bytes(kept(root).read_bytes()[:50])
    assert torch.equal(folder(root).train.pixels, good.train.pixels)


def test_without_a_writable_place_nothing_is_kept_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "pets"
    write_folder(root)

    def refuse(*_: object, **__: object) -> None:
        raise BadInput("cannot write there")

    monkeypatch.setattr("earmark.data.folders.save_tensors", refuse)
    assert len(folder(root).train) == 6
    assert not kept(root).exists()
    assert "not kept" in caplog.text


def test_the_first_image_of_another_size_is_named_with_the_way_out(tmp_path: Path) -> None:
    write_folder(tmp_path)
    picture(tmp_path / "train" / "dog" / "1.png", 5, size=(9, 9))
    with pytest.raises(BadInput, match=r"dog/1\.png is 9 x 9 and .*0\.png is 4 x 6.*size="):
        folder(tmp_path)
    assert folder(tmp_path, size=(4, 6)).shape == (1, 4, 6)


def test_sizes_are_kept_apart(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert folder(tmp_path).shape == (1, 4, 6)
    assert folder(tmp_path, size=(8, 2)).shape == (1, 8, 2)
    assert folder(tmp_path).shape == (1, 4, 6)


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no folder"):
        folder(tmp_path / "nowhere")
    write_folder(tmp_path / "a", parts=("train",))
    with pytest.raises(BadInput, match="neither test/ nor val/"):
        folder(tmp_path / "a")
    write_folder(tmp_path / "b")
    (tmp_path / "b" / "train" / "bird").mkdir()
    with pytest.raises(BadInput, match="bird has no images"):
        folder(tmp_path / "b")
    picture(tmp_path / "b" / "train" / "bird" / "0.png", 1)
    with pytest.raises(BadInput, match="bird is in one only"):
        folder(tmp_path / "b")
    (tmp_path / "c" / "cat").mkdir(parents=True)
    with pytest.raises(BadInput, match="has 1 sub-folders"):
        folder(tmp_path / "c")


def test_files_that_are_no_eight_bit_images_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    odd = tmp_path / "test" / "cat" / "1.png"
    odd.write_bytes(odd.read_bytes()[:40])
    with pytest.raises(BadInput, match=r"cat/1\.png is no readable image"):
        folder(tmp_path)
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(odd)
    with pytest.raises(BadInput, match=r"cat/1\.png has pixels of mode I"):
        folder(tmp_path)


# ----------------------------------------------------------------------------------------------------------------- npz

IMAGES = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)


def test_npz_layouts_and_types_agree(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    keras, medmnist = tmp_path / "keras.npz", tmp_path / "medmnist.npz"
    np.savez(keras, x_train=IMAGES, y_train=labels, x_test=IMAGES / 255, y_test=labels)
    np.savez_compressed(
        medmnist,
        train_images=IMAGES.transpose(0, 3, 1, 2).astype(np.int64),
        train_labels=labels[:, None].astype(np.uint8),
        test_images=IMAGES.astype(np.float32) / np.float32(255),
        test_labels=labels[:, None],
        val_images=IMAGES,
    )
    expected = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    for file in (keras, medmnist):
        data = open_data(f"npz:{file}")
        assert torch.equal(data.train.pixels, expected)
        assert torch.equal(data.test.pixels, expected)
        assert data.test.labels.tolist() == [0, 1]
        assert data.train.name == file.stem


def test_grey_npz_images_get_their_channel(tmp_path: Path) -> None:
    file = tmp_path / "grey.npz"
    np.savez(file, x_train=IMAGES[..., 0], y_train=[0, 1], x_test=IMAGES[..., 0], y_test=[0, 1])
    assert npz(file).shape == (1, 5, 6)


BAD_ARRAYS: dict[str, tuple[str, object]] = {
    "pickle": ("x_train", np.array([object(), None])),
    "normalised": ("x_train", IMAGES / 64 - 2.0),
    "nan": ("x_train", np.full((2, 4, 4), np.nan)),
    "infinite": ("x_train", np.full((2, 4, 4), np.inf)),
    "text": ("x_train", np.full((2, 4, 4), "x")),
    "complex": ("x_train", np.full((2, 4, 4), 1j)),
    "sixteen bits": ("x_train", IMAGES.astype(np.uint16) * 10),
    "rank": ("x_train", IMAGES[None]),
    "no channels": ("x_train", np.zeros((2, 4, 4, 4), np.uint8)),
    "two ways": ("x_train", np.zeros((2, 3, 4, 3), np.uint8)),
    "one hot": ("y_train", np.eye(2, dtype=np.int64)),
    "float labels": ("y_train", np.array([0.0, 1.0])),
    "negative": ("y_train", np.array([-1, 0])),
    "too few": ("y_train", np.array([0])),
    "other shape": ("x_test", np.zeros((2, 4, 4), np.uint8)),
    "empty": ("x_test", IMAGES[:0]),
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_npz_arrays_that_do_not_fit_are_an_error(tmp_path: Path, what: str) -> None:
    good = {"x_train": IMAGES, "y_train": [0, 1], "x_test": IMAGES, "y_test": [0, 1]}
    name, value = BAD_ARRAYS[what]
    np.savez(tmp_path / "bad.npz", **{**good, name: value})  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        npz(tmp_path / "bad.npz")


def test_npz_labels_of_more_classes_than_any_task_has_are_an_error(tmp_path: Path) -> None:
    def saved(label: int) -> Path:
        images, labels = np.zeros((2, 4, 4), np.uint8), np.array([0, label])
        np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        return tmp_path / "x.npz"

    assert npz(saved(MOST_CLASSES - 1)).classes == MOST_CLASSES
    for label in (MOST_CLASSES, 2 * 10**15):
        with pytest.raises(BadInput, match=f"expected 2 to 65536 classes, got {label + 1}"):
            npz(saved(label))


def test_an_npz_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no file .*lost\.npz"):
        npz(tmp_path / "lost.npz")


def test_files_that_are_no_npz_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(BadInput, match=r"x\.npz"):
        npz(file)
    for content in (b"", b"PK\3\4junk", b"\x80\x04K\x01."):
        file.write_bytes(content)
        with pytest.raises(BadInput, match=r"x\.npz"):
            npz(file)
    np.savez(file, a=IMAGES)
    with pytest.raises(BadInput, match="holds a; expected x_train"):
        npz(file)
    with file.open("wb") as handle:
        np.save(handle, IMAGES)
    with pytest.raises(BadInput, match=r"x\.npz"):
        npz(file)


# ----------------------------------------------------------------------------------------------------------- open_data


def test_unknown_data_suggests_the_nearest_kind() -> None:
    with pytest.raises(BadInput, match="did you mean 'digits'"):
        open_data("digit")
    with pytest.raises(BadInput, match="did you mean 'folder'"):
        open_data("foldr:x")
    for text in ("idx", "idx:"):
        with pytest.raises(BadInput, match="idx:PATH"):
            open_data(text)
    with pytest.raises(BadInput, match="digits come with the library"):
        open_data("digits:foo")
