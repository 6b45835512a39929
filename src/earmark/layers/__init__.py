"""Other people's networks, changed by type: convolutions and norms that are found, paired and made passport layers."""

from earmark.layers.fork import protect
from earmark.layers.passport import PassportNorm, Path, expose, on_path, passport_norms
from earmark.layers.sites import Site, find_sites, public_scales
from earmark.layers.windows import affine, windows

__all__ = [
    "PassportNorm",
    "Path",
    "Site",
    "affine",
    "expose",
    "find_sites",
    "on_path",
    "passport_norms",
    "protect",
    "public_scales",
    "windows",
]
