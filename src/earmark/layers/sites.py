"""Where a network has a convolution with a norm right behind it: found by running it once, whatever its code is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from earmark.errors import BadInput, whole
from earmark.models import device_of, dtype_of, evaluating
from earmark.models.modes import given

__all__ = ["NORMS", "Site", "find_sites", "public_scales"]

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm)
MODES = ("zeros", "reflect", "replicate", "circular")
LARGEST = 1 << 20
MOST_VALUES = 1 << 27


@dataclass(frozen=True)
class Site:
    """A convolution and the norm behind it, by name, with all that a passport's shape and effect hang on.

    Attributes:
        conv, norm: the names of both, as in `named_modules`.
        inputs: (I, H, W) of what the convolution reads, which is the shape of a passport.
        outputs: O, how many channels it writes: the bits that the site carries.
        kernel, stride, dilation: of the convolution, (height, width).
        padding: rows above and below, columns left and right.
        padding_mode: as in `nn.Conv2d`.
        groups: of the convolution.
    """

    conv: str
    norm: str
    inputs: tuple[int, int, int]
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    padding_mode: str = "zeros"
    groups: int = 1

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """The shape (O, I / groups, height, width) of the convolution's weight."""
        return self.outputs, self.inputs[0] // self.groups, *self.kernel

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, came: Mapping[str, Any]) -> Site:
        """The site that `to_dict` wrote, from a file that may be hostile.

        Raises:
            BadInput: anything missing, unknown, of another type, or out of range.
        """
        if set(came) != {field.name for field in fields(cls)}:
            raise BadInput(
                f"passports: expected a site with {', '.join(f.name for f in fields(cls))}, got {came!r:.80}"
            )
        values: dict[str, Any] = {}
        for name, length, low in SIZES:
            values[name] = _sizes(name, came[name], length, low)
        values["outputs"] = whole("outputs of a site", came["outputs"], 1, LARGEST)
        values["groups"] = whole("groups of a site", came["groups"], 1, LARGEST)
        for name in ("conv", "norm"):
            values[name] = came[name]
            if not isinstance(came[name], str):
                raise BadInput(f"passports: expected the name of a layer, got {came[name]!r:.80}")
        if came["padding_mode"] not in MODES:
            raise BadInput(
                f"passports: expected a padding mode of {', '.join(MODES)}, got {came['padding_mode']!r:.80}"
            )
        if values["inputs"][0] % values["groups"] or values["outputs"] % values["groups"]:
            raise BadInput(f"passports: {values['groups']} groups do not divide the channels of {values['conv']!r:.80}")
        return _runnable(cls(**values, padding_mode=came["padding_mode"]))


SIZES = (("inputs", 3, 1), ("kernel", 2, 1), ("stride", 2, 1), ("dilation", 2, 1), ("padding", 4, 0))


def _sizes(name: str, came: Any, length: int, low: int) -> tuple[int, ...]:
    if not isinstance(came, Sequence) or isinstance(came, str) or len(came) != length:
        raise BadInput(f"passports: expected {length} numbers for {name} of a site, got {came!r:.80}")
    return tuple(whole(f"{name} of a site", value, low, LARGEST) for value in came)


def _runnable(site: Site) -> Site:
    """The site, if its convolution can read such a passport at all, and in reasonable memory."""
    values = site.inputs[0]
    for axis, size in enumerate(site.inputs[1:]):
        before, after = site.padding[2 * axis : 2 * axis + 2]
        farthest = {"reflect": size - 1, "circular": size}.get(site.padding_mode, LARGEST)
        wide = size + before + after
        if max(before, after) > farthest or site.dilation[axis] * (site.kernel[axis] - 1) >= wide:
            raise BadInput(f"passports: the convolution {site.conv!r:.80} cannot read inputs of {site.inputs}")
        values *= wide
    if values > MOST_VALUES:
        raise BadInput(f"passports: expected at most 2^27 padded numbers for {site.conv!r:.80}, got {values}")
    return site


def find_sites(model: nn.Module, example: Tensor, layers: str | int) -> list[Site]:
    """The sites of a network, in the order in which it runs them.

    A norm belongs to a convolution where it is given the very tensor that the convolution returned, and both run once.

    Args:
        model: any network; it is run once, in eval mode.
        example: images (N, C, H, W) in [0, 1] that it takes.
        layers: a pattern for the names of the convolutions, such as "layer4.*", or how many sites, counted from the
            output.

    Raises:
        BadInput: a network without any site, a pattern that fits none, or more sites than there are.
    """
    found = _paired(model, example)
    if not found:
        raise BadInput(
            "the network has no nn.Conv2d with a batch, group or instance norm right behind it; passports need one"
        )
    if isinstance(layers, str):
        chosen = [site for site in found if fnmatchcase(site.conv, layers)]
        if not chosen:
            raise BadInput(f"no convolution with a norm is called {layers!r}; there are {_names(found)}")
        return chosen
    return found[-whole("layers", layers, 1, len(found)) :]


def public_scales(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """The scale of the norm behind each convolution, float64 (O,), for everybody to see; none where there is no norm.

    Args:
        model: any network, run once as in `find_sites`.
        example: as in `find_sites`.
    """
    scales = {site.conv: getattr(model.get_submodule(site.norm), "weight", None) for site in _paired(model, example)}
    return {conv: scale.detach().to("cpu", torch.float64) for conv, scale in scales.items() if scale is not None}


def _names(sites: Sequence[Site]) -> str:
    return ", ".join(repr(site.conv) for site in sites)


def _paired(model: nn.Module, example: Tensor) -> list[Site]:
    modules = dict(model.named_modules())
    written: dict[str, tuple[Tensor, Tensor]] = {}
    runs: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def wrote(name: str) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        def hook(_: nn.Module, args: Any, named: Any, output: Tensor) -> None:
            runs[name] = runs.get(name, 0) + 1
            written[name] = (given(args, named), output)

        return hook

    def reads(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, named: Any) -> None:
            runs[name] = runs.get(name, 0) + 1
            read = given(args, named)
            pairs.extend((conv, name) for conv, (_, output) in written.items() if output is read)

        return hook

    convs = {name: module for name, module in modules.items() if type(module) is nn.Conv2d}
    norms = {name: module for name, module in modules.items() if isinstance(module, NORMS)}
    hooks = [module.register_forward_hook(wrote(name), with_kwargs=True) for name, module in convs.items()]
    hooks += [module.register_forward_pre_hook(reads(name), with_kwargs=True) for name, module in norms.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(example.to(device_of(model), dtype_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
    once = [(conv, norm) for conv, norm in pairs if runs[conv] == runs[norm] == 1]
    return [_site(conv, norm, modules[conv], written[conv][0]) for conv, norm in once]


def _site(conv: str, norm: str, module: nn.Module, read: Tensor) -> Site:
    assert isinstance(module, nn.Conv2d), "hooks are on convolutions alone"
    channels, height, width = read.shape[1:]
    return Site(
        conv=conv,
        norm=norm,
        inputs=(channels, height, width),
        outputs=module.out_channels,
        kernel=(module.kernel_size[0], module.kernel_size[1]),
        stride=(module.stride[0], module.stride[1]),
        dilation=(module.dilation[0], module.dilation[1]),
        padding=_padding(module),
        padding_mode=module.padding_mode,
        groups=module.groups,
    )


def _padding(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    if conv.padding == "valid":
        return 0, 0, 0, 0
    if conv.padding == "same":  # an odd row or column is put below and on the right
        wide = [dilation * (kernel - 1) for dilation, kernel in zip(conv.dilation, conv.kernel_size, strict=True)]
        above, left = wide[0] // 2, wide[1] // 2
        return above, wide[0] - above, left, wide[1] - left
    rows, columns = (int(size) for size in conv.padding)
    return rows, rows, columns, columns
