"""Make layers passport layers, and find where the public and the private path part: as late as the network allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from earmark.errors import BadInput, CannotCarry
from earmark.layers.passport import Doubling, Entry, PassportNorm, Route, on_path
from earmark.layers.sites import NORMS, Site
from earmark.layers.windows import windows
from earmark.models import device_of, dtype_of, logits_of
from earmark.models.modes import given

__all__ = ["protect"]

IMAGES = 3
TOLERANCE = 1e-3


def protect(
    model: nn.Module,
    passports: Mapping[Site, tuple[Tensor, Tensor]],
    example: Tensor,
    *,
    public: bool = True,
) -> nn.Module:
    """Turn the sites of a network into passport layers, in place, and return it.

    What comes before the first passport layer is computed once for both paths, and so are that layer's convolution and,
    where it is no batch norm, its statistics. In a network that does not allow it (an identity shortcut around the
    first passport layer, say), the paths part at the input of the smallest module that holds all passport layers, or
    of one around it. Whether both paths come out of one pass as they do alone is tried on the example.

    Args:
        model: any network with these sites.
        passports: P_gamma and P_beta, each (N_P, I, H, W), for each site.
        example: one image or more (N, C, H, W) in [0, 1] that the network takes.
        public: whether the network also has a path without passports (V2, V3) or not (V1).

    Raises:
        CannotCarry: a site that the network does not have, or a norm without scale and shift.
        BadInput: a passport of another shape than its site's input, or a network whose answers to some images hang on
            the others, so that two paths cannot be computed in one pass.
    """
    route, example = Route("public" if public else "private"), example[:1].to(device_of(model), dtype_of(model))
    images = example * torch.linspace(1, 0.4, IMAGES).view(-1, 1, 1, 1).to(example)
    for site, pair in passports.items():
        _install(model, site, pair, route, public)
    if public:
        model.register_forward_pre_hook(Entry(route), with_kwargs=True)
        _part(model, images, route)
    return model


def _install(model: nn.Module, site: Site, pair: tuple[Tensor, Tensor], route: Route, public: bool) -> None:
    try:
        conv, norm = model.get_submodule(site.conv), model.get_submodule(site.norm)
    except AttributeError as error:
        raise CannotCarry(
            f"the network has no layers {site.conv!r} and {site.norm!r}; mint for this network"
        ) from error
    fits = isinstance(conv, nn.Conv2d) and isinstance(norm, NORMS) and list(conv.weight.shape) == list(site.weight)
    if not isinstance(conv, nn.Conv2d) or not fits:
        raise CannotCarry(
            f"{site.conv!r} and {site.norm!r} are no convolution {site.weight} with its norm; mint for this network"
        )
    if getattr(norm, "weight", None) is None or getattr(norm, "bias", None) is None:
        raise CannotCarry(f"the norm {site.norm!r} has no scale and shift; build it with affine=True")
    means = torch.stack([windows(passport, site) for passport in pair]).to(conv.weight)
    model.set_submodule(site.norm, PassportNorm(norm, route, conv, means, public))


def _part(model: nn.Module, images: Tensor, route: Route) -> None:
    """Find the last place where the paths can part, and give every batch norm behind it statistics of both paths."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for place in _places(model):
            hook = None
            if place is not None:
                hook = model.get_submodule(place).register_forward_pre_hook(Doubling(route), with_kwargs=True)
            behind = _norms_behind(model, images)
            if behind is not None:
                for name in behind:
                    norm = model.get_submodule(name)
                    modes[wrapped := PassportNorm(norm, route, None, None, True)] = modes[norm]
                    model.set_submodule(name, wrapped)
                return
            if hook is not None:
                hook.remove()
    finally:
        for module, mode in modes.items():
            module.training = mode
    raise BadInput(
        "the network does not answer each image by itself, so that a public and a private path cannot share one pass"
    )


def _places(model: nn.Module) -> list[str | None]:
    """None for the norms themselves, then the modules that hold all passport layers, from the smallest out."""
    names = [name.split(".") for name, module in model.named_modules() if isinstance(module, PassportNorm)]
    shared = 0
    while all(len(parts) - 1 > shared and parts[shared] == names[0][shared] for parts in names):
        shared += 1
    return [None, *(".".join(names[0][:depth]) for depth in range(shared, -1, -1))]


def _norms_behind(model: nn.Module, images: Tensor) -> list[str] | None:
    """The batch norms that see both paths, or None where one pass does not give what two give."""
    inner = {id(part) for module in model.modules() if isinstance(module, PassportNorm) for part in module.modules()}
    seen: set[str] = set()

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, named: Any) -> None:
            if len(given(args, named)) == 2 * len(images):
                seen.add(name)

        return hook

    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, NORMS[0]) and id(m) not in inner]
    hooks = [module.register_forward_pre_hook(note(name), with_kwargs=True) for name, module in norms]
    try:
        with torch.no_grad():
            answers = {}
            for path in ("public", "private", "both"):
                with on_path(model, path):
                    answers[path] = logits_of(model(images))
    except RuntimeError:
        return None
    finally:
        for one in hooks:
            one.remove()
    apart = torch.cat([answers["public"], answers["private"]])
    together = answers["both"]
    near = together.shape == apart.shape and torch.allclose(together, apart, rtol=TOLERANCE, atol=TOLERANCE)
    return [name for name, _ in norms if name in seen] if near else None
