"""Passports and the signature in the signs of their scales: minted from a key, read from a network's weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from earmark import files
from earmark.core import MOST_CLASSES, Data, Images, Null
from earmark.errors import BadInput, CannotCarry, number, unknown_name, whole
from earmark.keys import MarkKey
from earmark.layers import Site, affine, find_sites, public_scales, windows
from earmark.marks.features import PASSPORTS, passports_of_images
from earmark.marks.signature import inscribed, octets, require_text, spelt

__all__ = ["NULL", "PassportMint", "Passports", "passport_mint"]

FORMAT = 1
MOST_SITES = 500
MOST_BITS = 1 << 20
MOST_VALUES = 1 << 27
NULL = Null(
    "exact",
    0.5,
    "The signature's bits were drawn from the key after the passports were fixed, so a network that does not know the "
    "key has each of them with probability 1/2, independently.",
)
SCALES = ("private", "product")
MORE = "protect more layers"
NULLS = {
    "private": NULL,
    "product": replace(NULL, words=f"A bit is the sign of the product of a private and a public scale. {NULL.words}"),
}


@final
@dataclass(frozen=True, eq=False)
class Passports:
    """Two passports for each protected layer, and the bits that the signs of its scales carry: the mark of DeepIPR.

    A suspect's bit o of a site is sign(<W_o, S>), S made from P_gamma (`layers.windows`); where the mint's `scale` is
    "product", it is sign(<W_o, S> gamma_o), gamma the scale of the suspect's own norm. Bits come from the key's stream
    "bits", whose context is the SHA-256 of all passports, sites and the signature text. Whoever solves for passports,
    or picks a text, to fit a network cannot pick the bits with them: one changed number draws all anew.

    Attributes:
        sites: the protected convolutions with their norms, in the network's order.
        pairs: P_gamma and P_beta of each site, float32 (1, I, H, W).
        bits: int8 (n,), -1 or +1, one for each output channel, site after site.
        settings: the mint, its format and every setting, as JSON.
        witnesses: labelled images on which the fidelity process F is run; None for none.

    Raises:
        BadInput: tensors or settings that are not of this form.
    """

    sites: tuple[Site, ...]
    pairs: tuple[tuple[Tensor, Tensor], ...]
    bits: Tensor
    settings: Mapping[str, Any]
    witnesses: Images | None = None

    def __post_init__(self) -> None:
        if not self.sites or len(self.sites) != len(self.pairs):
            raise BadInput(f"passports: expected a pair for each site, got {len(self.pairs)} for {len(self.sites)}")
        if len({site.conv for site in self.sites}) != len(self.sites):
            raise BadInput("passports: a convolution is named twice; name each site once")
        for site, pair in zip(self.sites, self.pairs, strict=True):
            for passport in pair:
                if passport.dtype != torch.float32 or tuple(passport.shape) != (1, *site.inputs):
                    raise BadInput(
                        f"passports: expected float32 {(1, *site.inputs)} for {site.conv!r:.80}, got {passport.dtype} "
                        f"{tuple(passport.shape)}"
                    )
                if not bool(torch.isfinite(passport).all()):
                    raise BadInput(f"passports: those of {site.conv!r:.80} are not finite")
        if self.bits.dtype != torch.int8 or self.bits.shape != (self.capacity,) or bool((self.bits.abs() != 1).any()):
            raise BadInput(
                f"passports: expected int8 bits ({self.capacity},) of -1 and 1, got {tuple(self.bits.shape)}"
            )
        try:
            object.__setattr__(self, "settings", json.loads(files.canonical_json(dict(self.settings))))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"passports: the settings are not JSON ({error}); use text, numbers and lists") from error
        if self.scale not in SCALES:
            raise unknown_name("scale of passports", str(self.scale), SCALES)

    def __len__(self) -> int:
        return len(self.bits)

    def __repr__(self) -> str:
        """Counts only: the content is secret."""
        return f"Passports({len(self)} bits in {len(self.sites)} layers)"

    @property
    def kind(self) -> str:
        return "passports"

    @property
    def null(self) -> Null:
        return NULLS[self.scale]

    @property
    def scale(self) -> str:
        """What a bit is the sign of: the "private" scale, or its "product" with the public one."""
        scale: str = self.settings.get("scale", "private")
        return scale

    @property
    def capacity(self) -> int:
        """How many bits the sites carry: their output channels."""
        return sum(site.outputs for site in self.sites)

    @property
    def tolerance(self) -> float:
        """epsilon_f of the fidelity process, in percentage points of accuracy."""
        return number("passports: tolerance", self.settings.get("tolerance", 3.0), 0, 100)

    def layers(self) -> dict[Site, tuple[Tensor, Tensor]]:
        """The passports by site: what `layers.protect` takes."""
        return dict(zip(self.sites, self.pairs, strict=True))

    def means(self) -> list[Tensor]:
        """S of P_gamma and P_beta of each site, float64 (2, groups, I / groups, height, width)."""
        return [torch.stack([windows(p, site) for p in pair]) for site, pair in self.layers().items()]

    def split(self, values: Tensor) -> list[Tensor]:
        """`values` (n, ...), site by site."""
        return list(torch.split(values, [site.outputs for site in self.sites]))

    def read(self, weights: Sequence[Tensor], public: Sequence[Tensor] | None = None) -> Tensor:
        """The bits (n,) that convolutions with these weights show: int8, 0 where a scale is 0 or no number.

        Args:
            weights: one for each site.
            public: the scales (O,) of the norms behind them; needed where bits are signs of products.

        Raises:
            BadInput: bits of products without public scales.
        """
        scales = [
            affine(weight.detach().to("cpu", torch.float64), means)[0]
            for weight, means in zip(weights, self.means(), strict=True)
        ]
        if self.scale == "product":
            if public is None:
                raise BadInput("these bits are signs of products; give the public scales, or the network to `shown`")
            scales = [own * other for own, other in zip(scales, public, strict=True)]
        return torch.nan_to_num(torch.cat(scales)).sign().to(torch.int8)

    def shown(self, model: nn.Module) -> Tensor:
        """The bits (n,) that a network shows, as `read` gives them.

        For products, the norms behind the convolutions are found by running the network on a witness. Where there is
        none, the public scale is 1: a norm that was folded into its convolution has left gamma_o W_o there.

        Raises:
            CannotCarry: a network without the mark's layers, or products and no witness.
        """
        convs = self._convs_in(model)
        weights = [conv.weight for conv in convs.values()]
        if self.scale == "private":
            return self.read(weights)
        return self.read(weights, self.public_in(model, list(convs)))

    def public_in(self, model: nn.Module, convs: Sequence[str]) -> list[Tensor]:
        """The public scales (O,) behind convolutions of a network, float64, 1 where there is no norm.

        Raises:
            CannotCarry: a mark without witnesses, one of which the network is run on.
        """
        if self.witnesses is None:
            raise CannotCarry("the mark has no witnesses to run a network on, which shows where its public scales are")
        found = public_scales(model, self.witnesses.pixels[:1].float() / 255)
        widths = [len(model.get_parameter(f"{conv}.weight")) for conv in convs]
        return [found.get(conv, torch.ones(n, dtype=torch.float64)) for conv, n in zip(convs, widths, strict=True)]

    def weights_in(self, model: nn.Module) -> list[Tensor]:
        """The weights of the protected convolutions in a network of the same architecture.

        They are found by name; in a network with other names, the convolutions of the same shapes in the same order.

        Raises:
            CannotCarry: a network that has no such convolutions.
        """
        return [conv.weight for conv in self._convs_in(model).values()]

    def _convs_in(self, model: nn.Module) -> dict[str, nn.Conv2d]:
        convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
        shapes = {name: tuple(conv.weight.shape) for name, conv in convs.items()}
        if all(shapes.get(site.conv) == site.weight for site in self.sites):
            return {site.conv: convs[site.conv] for site in self.sites}
        wanted = {site.weight for site in self.sites}
        alike = {name: conv for name, conv in convs.items() if shapes[name] in wanted}
        if [shapes[name] for name in alike] != [site.weight for site in self.sites]:
            raise CannotCarry(
                f"the network does not have the {len(self.sites)} convolutions that the passports are for, neither by "
                "name nor by shape"
            )
        return alike

    def text(self, bits: Tensor, key: MarkKey) -> str:
        """The signature text that bits (n,) show, with a question mark for what is no UTF-8.

        Raises:
            BadInput: settings that `PassportMint` does not have, or a signature beyond the capacity.
        """
        size = octets(passport_mint(self.settings).signature, self.capacity, MORE)
        plain, places = _keyed(key, self.sites, self.pairs, self.settings, self.capacity)
        return spelt(bits, plain, places, size)

    def spec(self) -> dict[str, Any]:
        seen = None if self.witnesses is None else self.witnesses.classes
        settings = copy.deepcopy(dict(self.settings))
        return {"sites": [site.to_dict() for site in self.sites], "settings": settings, "classes": seen}

    def tensors(self) -> dict[str, Tensor]:
        own = {"bits": self.bits}
        for at, (scale, shift) in enumerate(self.pairs):
            own |= {f"scale.{at}": scale, f"shift.{at}": shift}
        if self.witnesses is not None:
            own |= {"images": self.witnesses.pixels, "labels": self.witnesses.labels}
        return own

    def digest(self) -> str:
        """Hex SHA-256 of `tensors` and `spec`: what a commitment binds."""
        return files.digest(self.tensors(), self.spec())

    @classmethod
    def from_parts(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Passports:
        """The mark whose `spec()` and `tensors()` these are, from a file that may be hostile.

        Raises:
            BadInput: anything missing, unknown, of another type, or out of range.
        """
        if set(spec) != {"sites", "settings", "classes"} or not isinstance(spec["settings"], Mapping):
            raise BadInput(f"passports: expected sites, settings and classes, got {sorted(map(str, spec))!r:.80}")
        if not isinstance(spec["sites"], Sequence) or isinstance(spec["sites"], str) or len(spec["sites"]) > MOST_SITES:
            raise BadInput(f"passports: expected a list of at most {MOST_SITES} sites, got {spec['sites']!r:.80}")
        if not all(isinstance(one, Mapping) for one in spec["sites"]):
            raise BadInput(f"passports: expected sites by name, got {spec['sites']!r:.80}")
        sites = tuple(Site.from_dict(one) for one in spec["sites"])
        seen = ("images", "labels") if spec["classes"] is not None else ()
        known = {"bits", *seen, *(f"{what}.{at}" for what in ("scale", "shift") for at in range(len(sites)))}
        if set(tensors) != known:
            raise BadInput(f"passports: expected the tensors {', '.join(sorted(known)):.200}")
        classes = whole("classes of the witnesses", spec["classes"], 2, MOST_CLASSES) if seen else 0
        witnesses = Images(tensors["images"], tensors["labels"], classes, "witnesses") if seen else None
        pairs = tuple((tensors[f"scale.{at}"], tensors[f"shift.{at}"]) for at in range(len(sites)))
        return cls(sites, pairs, tensors["bits"], spec["settings"], witnesses)


@final
@dataclass(frozen=True)
class PassportMint:
    """Mint passports for a network's layers, and the bits of the signature.

    Attributes:
        layers: a pattern for the names of convolutions with a norm behind them, or how many, counted from the output.
        signature: a text that the bits spell, in UTF-8, spread over all layers by a keyed permutation and enciphered
            with keyed bits, so that every bit is a fair coin for whoever does not know the key.
        passports: "random", uniform on [-1, 1] from the key, as the judge mints it again; or feature maps of a trained
            network of the host's architecture, in eval mode: "image" of one image, "shuffle" of one of `images` for
            each layer (the paper), "mix" a channel from each in turn (the released code).
        images: how many images feature maps are chosen from, by the key.
        tolerance: epsilon_f, by how many percentage points the accuracy with passports may differ from the one
            without; 3 for AlexNet and 10 for ResNet in the paper, which set it after its attacks.
        witnesses: how many test images, chosen by the key, go into the mark for the fidelity process.
        scale: what a bit is the sign of. "private" is the paper's <W_o, S>. "product" is <W_o, S> gamma_o, gamma the
            public scale that V2 and V3 learn beside it: whoever negates a filter negates gamma_o with it to keep the
            function, and the product stays, as it does where gamma is folded into the filter. Where no activation
            follows the norm, the sign of gamma_o is free by itself, and the product is, too. It needs a witness.
    """

    layers: str | int = 3
    signature: str = ""
    passports: Literal["random", "image", "shuffle", "mix"] = "random"
    images: int = 20
    tolerance: float = 3.0
    witnesses: int = 200
    scale: Literal["private", "product"] = "private"

    def __post_init__(self) -> None:
        if not isinstance(self.layers, str):
            whole("layers", self.layers, 1)
        if self.passports not in PASSPORTS:
            raise unknown_name("kind of passports", str(self.passports), PASSPORTS)
        whole("images", self.images, 1, 10_000)
        whole("witnesses", self.witnesses, 0, 100_000)
        number("tolerance", self.tolerance, 0, 100)
        if self.scale not in SCALES:
            raise unknown_name("scale of passports", str(self.scale), SCALES)
        if self.scale == "product" and not self.witnesses:
            raise BadInput("witnesses: products are read from a network that is run on one; take at least 1")
        require_text(self.signature)

    def __call__(self, key: MarkKey, host: nn.Module | None, data: Data) -> Passports:
        """The mark for `host`.

        Raises:
            BadInput: no host, layers that it does not have, a signature beyond the capacity, or feature maps of a
                network that has learnt nothing.
        """
        if host is None:
            raise BadInput("passports are minted for a network's layers; give the host")
        sites = tuple(find_sites(host, data.train.pixels[:1].float() / 255, self.layers))
        how = self.passports
        drawn = None if how == "random" else passports_of_images(how, self.images, key, host, data, sites)
        count = min(self.witnesses, len(data.test))
        chosen = data.test.subset(key.stream("witnesses").choice(len(data.test), count)) if count else None
        return self.make(key, sites, drawn, chosen)

    def make(
        self,
        key: MarkKey,
        sites: tuple[Site, ...],
        drawn: tuple[tuple[Tensor, Tensor], ...] | None = None,
        witnesses: Images | None = None,
    ) -> Passports:
        """The mark for these sites: what a judge repeats. `drawn` are passports that are not made from the key.

        Raises:
            BadInput: a signature beyond the capacity, or passports that do not fit.
        """
        capacity = sum(site.outputs for site in sites)
        octets(self.signature, capacity, MORE)
        _check_size(sites)
        if (drawn is None) != (self.passports == "random"):
            raise BadInput(f"{self.passports} passports: expected {'none' if drawn else 'some'} to be given")
        pairs = _random_pairs(key, sites) if drawn is None else drawn
        bits = inscribed(self.signature, *_keyed(key, sites, pairs, self.settings(), capacity))
        return Passports(sites, pairs, bits, self.settings(), witnesses)

    def remake(self, key: MarkKey, mark: Passports) -> Passports:
        """The mark that `key` mints for the sites, feature maps and witnesses of `mark`."""
        return self.make(key, mark.sites, None if self.passports == "random" else mark.pairs, mark.witnesses)

    def settings(self) -> dict[str, Any]:
        """The name, the format and every field, as JSON; a private scale is not named, as in all marks before."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.scale == "private":
            del own["scale"]
        return {"mint": "passports", "format": FORMAT, **own}


def passport_mint(settings: Mapping[str, Any]) -> PassportMint:
    """The mint whose `settings()` these are.

    Raises:
        BadInput: an unknown setting or format, or a value out of its range.
    """
    known = {field.name for field in fields(PassportMint)}
    if settings.get("mint") != "passports" or settings.get("format") != FORMAT:
        raise BadInput(f"expected passports of format {FORMAT}, got {settings.get('format')!r:.80}; update earmark")
    values = {name: value for name, value in settings.items() if name not in ("mint", "format")}
    for name in values:
        if name not in known:
            raise unknown_name("setting of passports", str(name), known)
    return PassportMint(**values)


def _check_size(sites: tuple[Site, ...]) -> None:
    values = sum(2 * site.inputs[0] * site.inputs[1] * site.inputs[2] for site in sites)
    kernels = sum(site.weight[1] * site.kernel[0] * site.kernel[1] * site.groups for site in sites)
    if len(sites) > MOST_SITES:
        raise BadInput(f"expected passports for at most {MOST_SITES} layers, got {len(sites)}; protect fewer")
    if max(values, kernels) > MOST_VALUES or sum(site.outputs for site in sites) > MOST_BITS:
        raise BadInput(f"expected passports of at most 2^27 numbers for 2^20 channels, got {max(values, kernels)}")


def _random_pairs(key: MarkKey, sites: tuple[Site, ...]) -> tuple[tuple[Tensor, Tensor], ...]:
    stream = key.stream("passports")
    shapes = [(1, *site.inputs) for site in sites]
    return tuple((_uniform(stream.uniforms, shape), _uniform(stream.uniforms, shape)) for shape in shapes)


def _uniform(draw: Any, shape: tuple[int, ...]) -> Tensor:
    drawn: Tensor = draw(torch.Size(shape).numel())
    return (2 * drawn - 1).to(torch.float32).view(shape)


def _keyed(
    key: MarkKey,
    sites: Sequence[Site],
    pairs: Sequence[tuple[Tensor, Tensor]],
    settings: Mapping[str, Any],
    capacity: int,
) -> tuple[Tensor, Tensor]:
    """Keyed bits (n,), and the order in which a signature's bits are put on channels, bound to everything else."""
    bound = {
        f"{what}.{at}": p for at, pair in enumerate(pairs) for what, p in zip(("scale", "shift"), pair, strict=True)
    }
    about = [[site.to_dict() for site in sites], str(settings["signature"])]
    if "scale" in settings:
        about.append(str(settings["scale"]))
    context = bytes.fromhex(files.digest(bound, about))
    return key.stream("bits", context).signs(capacity), key.stream("places", context).permutation(capacity)
