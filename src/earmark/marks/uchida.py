"""Uchida's watermark: bits that a secret projection reads from the mean filter of one layer, minted from a key."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, final

import torch
from torch import Tensor, nn

from earmark import files
from earmark.core import MOST_CLASSES, Data, Null
from earmark.errors import BadInput, CannotCarry, unknown_name, whole
from earmark.keys import MarkKey
from earmark.marks.signature import inscribed, octets, require_text, spelt
from earmark.models import require_initialised

__all__ = ["Layer", "Projection", "ProjectionMint", "projection_mint"]

FORMAT = 1
MOST_BITS = 1 << 14
MOST_VALUES = 1 << 25
LARGEST = 1 << 24
MORE = "take more bits"
CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS: tuple[type[nn.Module], ...] = (*CONVOLUTIONS, nn.Linear)
NULL = Null(
    "exact",
    0.5,
    "The bits were drawn from the key after the projection was fixed, so a network that does not know the key has each "
    "of them with probability 1/2, independently.",
)


@final
@dataclass(frozen=True)
class Layer:
    """The layer that a projection reads, by name and by shape.

    Attributes:
        name: as in `named_modules`.
        weight: the shape (O, ...) of its weight.
        place: which of the network's layers with a weight of this shape it is, counted from 0.
        alike: how many of these there are.
    """

    name: str
    weight: tuple[int, ...]
    place: int = 0
    alike: int = 1

    @property
    def size(self) -> int:
        """M, the numbers of one filter: how many bits the layer carries at most."""
        return math.prod(self.weight[1:])

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {"name": self.name, "weight": list(self.weight), "place": self.place, "alike": self.alike}

    @classmethod
    def from_dict(cls, came: Any) -> Layer:
        """The layer that `to_dict` wrote, from a file that may be hostile.

        Raises:
            BadInput: anything missing, unknown, of another type, or out of range.
        """
        if not isinstance(came, Mapping) or set(came) != {field.name for field in fields(cls)}:
            raise BadInput(f"projection: expected a layer with name, weight, place and alike, got {came!r:.80}")
        if not isinstance(came["name"], str):
            raise BadInput(f"projection: expected the name of a layer, got {came['name']!r:.80}")
        weight = _sizes("weight of a layer", came["weight"], 2, 5)
        alike = whole("layers alike", came["alike"], 1)
        return cls(came["name"], weight, whole("place of a layer", came["place"], 0, alike - 1), alike)


@final
@dataclass(frozen=True, eq=False)
class Projection:
    """A projection X of a layer's mean filter, and the bits that its signs carry: the mark of Uchida et al. 2017.

    With w = (1 / O) sum_o W_o the layer's weight averaged over its filters, M numbers, bit j of a network is the sign
    of (X w)_j: sigmoid((X w)_j) >= 1/2 in the paper (eq. 2), whose bits are 0 and 1. X is drawn from the key's stream
    "projection", standard normal, the paper's best choice. Bits come from its stream "bits", whose context is the
    SHA-256 of X, the layer and the signature text, so that whoever chooses X cannot choose the bits with it.

    Attributes:
        layer: what is read.
        projection: X, float32 (T, M).
        bits: int8 (T,), -1 or +1.
        settings: the mint, its format and every setting, as JSON.
        shape: (C, H, W) of the images that the network takes.
        classes: K, the number of its classes.

    Raises:
        BadInput: tensors or settings that are not of this form.
    """

    layer: Layer
    projection: Tensor
    bits: Tensor
    settings: Mapping[str, Any]
    shape: tuple[int, int, int]
    classes: int

    def __post_init__(self) -> None:
        x, bits = self.projection, self.bits
        if x.dtype != torch.float32 or x.ndim != 2 or not len(x) or x.shape[1] != self.layer.size:
            raise BadInput(f"projection: expected float32 (T, {self.layer.size}), got {x.dtype} {tuple(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise BadInput("projection: it is not finite")
        if bits.dtype != torch.int8 or bits.shape != x.shape[:1] or bool((bits.abs() != 1).any()):
            raise BadInput(f"projection: expected int8 bits ({len(x)},) of -1 and 1, got {tuple(bits.shape)}")
        try:
            object.__setattr__(self, "settings", json.loads(files.canonical_json(dict(self.settings))))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"projection: the settings are not JSON ({error}); use text, numbers and lists") from error

    def __len__(self) -> int:
        return len(self.bits)

    def __repr__(self) -> str:
        """Counts only: the content is secret."""
        return f"Projection({len(self)} bits in one layer)"

    @property
    def kind(self) -> str:
        return "projection"

    @property
    def null(self) -> Null:
        return NULL

    def read(self, weight: Tensor) -> Tensor:
        """The bits (T,) that a layer with this weight (O, ...) shows: int8, 0 where X w is 0 or no number."""
        return torch.nan_to_num(self._product(weight)).sign().to(torch.int8)

    def shown(self, model: nn.Module) -> Tensor:
        """The bits (T,) that a network shows, as `read` gives them.

        Raises:
            CannotCarry: a network without the mark's layer.
        """
        return self.read(_weight(model.get_submodule(self.name_in(model))))

    def projected(self, model: nn.Module) -> Tensor:
        """X w (T,) of a network, float64; raises as `shown` does."""
        return self._product(_weight(model.get_submodule(self.name_in(model))))

    def _product(self, weight: Tensor) -> Tensor:
        return self.projection.double() @ weight.detach().to("cpu", torch.float64).mean(0).flatten()

    def name_in(self, model: nn.Module) -> str:
        """The name of the layer in a network of the same architecture.

        It is found by name; in a network with other names, by its place among the layers of the same shape.

        Raises:
            CannotCarry: a network that has no such layer.
        """
        alike = [name for name, layer in _layers(model).items() if _weight(layer).shape == self.layer.weight]
        if self.layer.name in alike:
            return self.layer.name
        if len(alike) != self.layer.alike:
            raise CannotCarry(
                "the network does not have the layer that the projection reads, neither by name nor by shape"
            )
        return alike[self.layer.place]

    def text(self, bits: Tensor, key: MarkKey) -> str:
        """The signature text that bits (T,) show, with a question mark for what is no UTF-8.

        Raises:
            BadInput: settings that `ProjectionMint` does not have, or a signature beyond the bits.
        """
        signature = projection_mint(self.settings).signature
        size = octets(signature, len(self), MORE)
        return spelt(bits, *_keyed(key, self.layer, self.projection, signature), size)

    def spec(self) -> dict[str, Any]:
        about = {"layer": self.layer.to_dict(), "settings": copy.deepcopy(dict(self.settings))}
        return {**about, "shape": list(self.shape), "classes": self.classes}

    def tensors(self) -> dict[str, Tensor]:
        return {"bits": self.bits, "projection": self.projection}

    def digest(self) -> str:
        """Hex SHA-256 of `tensors` and `spec`: what a commitment binds."""
        return files.digest(self.tensors(), self.spec())

    @classmethod
    def from_parts(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Projection:
        """The mark whose `spec()` and `tensors()` these are, from a file that may be hostile.

        Raises:
            BadInput: anything missing, unknown, of another type, or out of range.
        """
        if set(spec) != {"layer", "settings", "shape", "classes"} or not isinstance(spec["settings"], Mapping):
            raise BadInput(
                f"projection: expected layer, settings, shape and classes, got {sorted(map(str, spec))!r:.80}"
            )
        if set(tensors) != {"bits", "projection"}:
            raise BadInput(
                f"projection: expected the tensors bits and projection, got {', '.join(sorted(tensors)):.80}"
            )
        channels, height, width = _sizes("shape of an image", spec["shape"], 3, 3)
        if channels not in (1, 3) or height * width > LARGEST:
            raise BadInput(
                f"projection: expected images of 1 or 3 channels and at most 2^24 pixels, got {spec['shape']}"
            )
        classes = whole("classes of the network", spec["classes"], 2, MOST_CLASSES)
        layer = Layer.from_dict(spec["layer"])
        whole_mark = (layer, tensors["projection"], tensors["bits"], spec["settings"])
        return cls(*whole_mark, (channels, height, width), classes)


@final
@dataclass(frozen=True)
class ProjectionMint:
    """Mint a projection for one layer of a network, and the bits that it reads there.

    Attributes:
        layer: the name of a convolution or a linear layer, or a pattern that fits one alone; None for the convolution
            with the largest filters, of several the first.
        bits: T, how many; at most M, the numbers of one filter, as many as any weight can be made to show. None for the
            paper's 256, or two thirds of M where that is less. A judge needs 84, if all are right.
        signature: a text that the bits spell, in UTF-8, spread by a keyed permutation and enciphered with keyed bits,
            so that every bit is a fair coin for whoever does not know the key.
    """

    layer: str | None = None
    bits: int | None = None
    signature: str = ""

    def __post_init__(self) -> None:
        if self.layer is not None and not isinstance(self.layer, str):
            raise BadInput(f"layer: expected a name, a pattern or none, got {self.layer!r:.80}")
        if self.bits is not None:
            whole("bits", self.bits, 1, MOST_BITS)
        require_text(self.signature)

    def __call__(self, key: MarkKey, host: nn.Module | None, data: Data) -> Projection:
        """The mark for `host`.

        Raises:
            BadInput: no host, no layer or several that `layer` means, more bits than the layer carries, or a signature
                beyond the bits.
        """
        if host is None:
            raise BadInput("a projection is minted for a network's layer; give the host")
        return self.make(key, _chosen(host, self.layer), data.shape, data.classes)

    def make(self, key: MarkKey, layer: Layer, shape: tuple[int, int, int], classes: int) -> Projection:
        """The mark for this layer of a network that takes such images: what a judge repeats.

        Raises:
            BadInput: more bits than the layer carries, a signature beyond the bits, or a projection too large.
        """
        count = max(1, min(256, 2 * layer.size // 3)) if self.bits is None else self.bits
        if count > layer.size:
            raise BadInput(
                f"{count} bits were asked for, and the layer {layer.name!r:.80} carries {layer.size}, the numbers "
                "of one filter; take fewer bits or a wider layer"
            )
        if count * layer.size > MOST_VALUES:
            raise BadInput(
                f"expected a projection of at most 2^25 numbers, got {count} x {layer.size}; take fewer bits"
            )
        octets(self.signature, count, MORE)
        drawn = key.stream("projection").normals(count * layer.size)
        projection = drawn.to(torch.float32).view(count, layer.size)
        bits = inscribed(self.signature, *_keyed(key, layer, projection, self.signature))
        return Projection(layer, projection, bits, self.settings(), shape, classes)

    def remake(self, key: MarkKey, mark: Projection) -> Projection:
        """The mark that `key` mints for the layer of `mark`."""
        return self.make(key, mark.layer, mark.shape, mark.classes)

    def settings(self) -> dict[str, Any]:
        """The name, the format and every field, as JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"mint": "projection", "format": FORMAT, **own}


def projection_mint(settings: Mapping[str, Any]) -> ProjectionMint:
    """The mint whose `settings()` these are.

    Raises:
        BadInput: an unknown setting or format, or a value out of its range.
    """
    known = {field.name for field in fields(ProjectionMint)}
    if settings.get("mint") != "projection" or settings.get("format") != FORMAT:
        raise BadInput(f"expected a projection of format {FORMAT}, got {settings.get('format')!r:.80}; update earmark")
    values = {name: value for name, value in settings.items() if name not in ("mint", "format")}
    for name in values:
        if name not in known:
            raise unknown_name("setting of a projection", str(name), known)
    return ProjectionMint(**values)


def _keyed(key: MarkKey, layer: Layer, projection: Tensor, signature: str) -> tuple[Tensor, Tensor]:
    """Keyed bits (T,), and the order in which a signature's bits are put on them, bound to everything else."""
    context = bytes.fromhex(files.digest({"projection": projection}, [layer.to_dict(), signature]))
    count = len(projection)
    return key.stream("bits", context).signs(count), key.stream("places", context).permutation(count)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor), "convolutions and linear layers have a weight"
    return weight


def _chosen(model: nn.Module, wanted: str | None) -> Layer:
    require_initialised(model)
    layers = {name: tuple(_weight(layer).shape) for name, layer in _layers(model).items()}
    if not layers:
        raise BadInput("the network has no convolution and no linear layer, one of which a projection reads")
    there = ", ".join(f"{name!r} ({math.prod(shape[1:])} bits)" for name, shape in layers.items())
    if wanted is not None:
        named = [name for name in layers if fnmatchcase(name, wanted)]
        if len(named) != 1:
            raise BadInput(f"layer: {len(named)} layers are called {wanted!r:.80}, expected one; there are {there}")
        return _described(named[0], layers)
    convolutions = {name: shape for name, shape in layers.items() if len(shape) > 2}
    if not convolutions:
        raise BadInput(f"layer: the network has no convolution, so name a linear layer before the last; it has {there}")
    return _described(max(convolutions, key=lambda name: math.prod(convolutions[name][1:])), layers)


def _described(name: str, layers: Mapping[str, tuple[int, ...]]) -> Layer:
    alike = [other for other, shape in layers.items() if shape == layers[name]]
    return Layer(name, layers[name], alike.index(name), len(alike))


def _sizes(what: str, came: Any, least: int, most: int) -> tuple[int, ...]:
    if not isinstance(came, Sequence) or isinstance(came, str) or not least <= len(came) <= most:
        raise BadInput(f"{what}: expected {least} to {most} numbers, got {came!r:.80}")
    return tuple(whole(what, value, 1, LARGEST) for value in came)
