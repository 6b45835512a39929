"""E: a marked copy of a host. Every method is a composition of terms, trainable set, start, and what training drops."""

from earmark.embed.backdoor import Backdoor, Surgery
from earmark.embed.baselines import adi, entangled, exponential_weighting
from earmark.embed.function_coupled import (
    function_coupled,
    function_coupled_2023_02,
    function_coupled_2023_06,
    function_coupled_plus,
)
from earmark.embed.methods import (
    METHODS,
    fixll,
    fixll_pfl,
    fixll_scratch,
    fixll_spl,
    fixll_twl,
    ftal,
    ftal_twl,
    ftll,
    method,
    polytope,
    scratch,
)
from earmark.embed.passports import PassportLayers, passport_v1, passport_v2, passport_v3
from earmark.embed.prototypes import POLYTOPES, d_cube, d_orthoplex, d_simplex, prototypes, uniform_fan
from earmark.embed.smoothing import KeyedSmoothing, MarkTerm
from earmark.embed.start import FromHost, FromModel, FromScratch, Start
from earmark.embed.uchida import UCHIDA, Uchida
from earmark.embed.views import ShadowViews

__all__ = [
    "METHODS",
    "POLYTOPES",
    "UCHIDA",
    "Backdoor",
    "FromHost",
    "FromModel",
    "FromScratch",
    "KeyedSmoothing",
    "MarkTerm",
    "PassportLayers",
    "ShadowViews",
    "Start",
    "Surgery",
    "Uchida",
    "adi",
    "d_cube",
    "d_orthoplex",
    "d_simplex",
    "entangled",
    "exponential_weighting",
    "fixll",
    "fixll_pfl",
    "fixll_scratch",
    "fixll_spl",
    "fixll_twl",
    "ftal",
    "ftal_twl",
    "ftll",
    "function_coupled",
    "function_coupled_2023_02",
    "function_coupled_2023_06",
    "function_coupled_plus",
    "method",
    "passport_v1",
    "passport_v2",
    "passport_v3",
    "polytope",
    "prototypes",
    "scratch",
    "uniform_fan",
]
