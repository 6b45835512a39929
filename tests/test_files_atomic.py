"""Files: whole or not there, readable or named; digests that tell everything apart."""

from __future__ import annotations

import errno
import os
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from earmark.errors import BadInput
from earmark.files import (
    digest,
    load_tensors,
    load_weights,
    model_digest,
    read_json,
    save_tensors,
    write_atomic,
    write_json,
    write_once,
)

GOLDEN = "99d9eef8edf0accd68a9376ac441620d8651f691b43855d871da45fdd7eeffdc"
"""Released digests never change."""


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.json"
    write_json(path, {"old": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"kept\.json.*No space left"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="folder that exists"):
        write_atomic(tmp_path / "no" / "file", b"")


@pytest.mark.parametrize("write", [write_atomic, write_once])
def test_modes_are_set(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "secret", b"x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("lay", [Path.touch, Path.mkdir, a_dangling_link])
def test_what_lies_there_is_never_written_over(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    path = tmp_path / "once"
    lay(path)
    before = path.lstat()
    with pytest.raises(BadInput, match="once exists and is never overwritten"):
        write_once(path, b"new")
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "said"), [(errno.EPERM, "makes no hard links"), (errno.EDQUOT, "uota exceeded")])
def test_a_link_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(BadInput, match=f"once.*{said}"):
        write_once(tmp_path / "once", b"new")
    assert list(tmp_path.iterdir()) == []


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(2, 3).t(), "b": torch.arange(4, dtype=torch.uint8), "c": torch.tensor(1.5)}
    save_tensors(tmp_path / "t.safetensors", tensors)
    back = load_tensors(tmp_path / "t.safetensors")
    assert digest(back) == digest(tensors)


def test_unreadable_files_are_named_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    (tmp_path / "text.json").write_text("{")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    torch.save({"a": torch.ones(1)}, tmp_path / "fine.pt")
    for name, read in (("cut.safetensors", load_tensors), ("text.json", read_json), ("module.pt", load_weights)):
        with pytest.raises(BadInput, match=name.replace(".", r"\.")):
            read(tmp_path / name)
        with pytest.raises(BadInput, match="not there"):
            read(tmp_path / f"missing-{name}")
    assert torch.equal(load_weights(tmp_path / "fine.pt")["a"], torch.ones(1))


@pytest.mark.parametrize("legacy", [False, True])
def test_any_damage_to_a_weight_file_is_bad_input_or_plain_tensors(tmp_path: Path, legacy: bool) -> None:
    path, draw = tmp_path / "w.pt", torch.Generator().manual_seed(0)
    torch.save(nn.Linear(3, 2).state_dict(), path, _use_new_zipfile_serialization=not legacy)
    raw = path.read_bytes()
    for _ in range(400):
        broken = bytearray(raw)
        for at, by in torch.randint(1, 1 << 30, (3, 2), generator=draw).tolist():
            broken[at % min(len(raw), 500)] ^= by % 255 + 1
        path.write_bytes(broken)
        with warnings.catch_warnings(), suppress(BadInput):
            warnings.simplefilter("ignore")
            assert all(isinstance(value, torch.Tensor) for value in load_weights(path).values())


@pytest.mark.parametrize("error", [IndexError, KeyError, AssertionError, struct.error, AttributeError, TypeError])
def test_whatever_the_reader_of_a_weight_file_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "w.pt").touch()
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(BadInput, match=r"w\.pt"):
        load_weights(tmp_path / "w.pt")


def test_files_too_large_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_text("[" + "0," * 100 + "0]")
    with pytest.raises(BadInput, match="larger than 50"):
        read_json(tmp_path / "big.json", limit=50)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=6), st.integers(0, 5), st.integers(1, 255))
def test_a_changed_byte_changes_the_digest(values: list[int], at: int, by: int) -> None:
    tensor = torch.tensor(values, dtype=torch.uint8)
    other = tensor.clone()
    other[at % len(values)] += by
    assert digest({"x": tensor}) != digest({"x": other})


def test_names_shapes_dtypes_and_meta_are_part_of_a_digest() -> None:
    x = torch.zeros(2, 3)
    digests = {
        digest({"x": x}),
        digest({"y": x}),
        digest({"x": x.reshape(3, 2)}),
        digest({"x": x.int()}),
        digest({"x": x}, {"a": 1}),
        digest({"x": x[:1], "xx": x[1:]}),
    }
    assert len(digests) == 6
    assert digest({"x": x, "y": x + 1}) == digest({"y": x + 1, "x": x})
    assert digest({"x": torch.arange(3)}, {"a": 1}) == GOLDEN


def test_layout_does_not_change_a_models_identity() -> None:
    with torch.random.fork_rng(devices=[]):
        conv = nn.Conv2d(3, 4, 3)
    before = model_digest(conv)
    assert model_digest(conv.to(memory_format=torch.channels_last)) == before  # type: ignore[call-overload]
