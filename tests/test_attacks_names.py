"""Attacks by name: what is unknown, missing or out of range is refused with a hint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import earmark.attacks
from earmark.attacks import (
    ATTACKS,
    EVASIONS,
    FORGERIES,
    PASSPORT_FORGERIES,
    PASSPORT_REMOVALS,
    PROJECTION_FORGERIES,
    Blur,
    NoiseDenoise,
    attack,
    evader,
    forger,
    passport_forger,
    projection_forger,
    washer,
)
from earmark.attacks.removal.prune import PruneGlobal
from earmark.attacks.removal.quantise import Quantise
from earmark.errors import BadInput
from earmark.marks import Noise

NEEDS = {
    "overwrite": "mint, embed, key",
    "transfer": "data",
    "knockoff": "data",
    "stack": "attacks",
    "grind": "mint",
    "chain": "washers",
    "retrained": "mark",
}
MAKERS: dict[str, Callable[..., object]] = {
    **dict.fromkeys(ATTACKS, attack),
    **dict.fromkeys(FORGERIES, forger),
    **dict.fromkeys(EVASIONS, evader),
    **dict.fromkeys(PASSPORT_REMOVALS, attack),
    **dict.fromkeys(PASSPORT_FORGERIES, passport_forger),
    **dict.fromkeys(PROJECTION_FORGERIES, projection_forger),
}
TABLES = (ATTACKS, FORGERIES, EVASIONS, PASSPORT_REMOVALS, PASSPORT_FORGERIES, PROJECTION_FORGERIES)


def test_no_name_has_two_meanings() -> None:
    assert len(MAKERS) == sum(map(len, TABLES))


@pytest.mark.parametrize("name", sorted(set(MAKERS) - set(NEEDS)))
def test_every_name_has_defaults(name: str) -> None:
    assert callable(MAKERS[name](name))


@pytest.mark.parametrize("name", NEEDS)
def test_what_has_no_default_is_asked_for(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} needs {NEEDS[name]}"):
        MAKERS[name](name)


def test_settings_replace_defaults() -> None:
    assert attack("prune-global", share=0.7, exclude_head=True) == PruneGlobal(0.7, True)
    assert attack("int8", per_channel=False) == Quantise(8, False)
    assert forger("grind", mint=Noise(4)) == forger("grind", mint=Noise(4), keys=256)
    assert washer("noise-denoise", denoiser=washer("blur", sigma=2)) == NoiseDenoise(0.1, Blur(2))


def test_an_unknown_attack_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="did you mean 'prune-global'"):
        attack("prune-globul")
    with pytest.raises(BadInput, match="did you mean 'adversarial'"):
        forger("adverserial")
    with pytest.raises(BadInput, match="did you mean 'flip-signs'"):
        attack("flip-sings")
    with pytest.raises(BadInput, match="unknown forgery of passports 'solve': did you mean 'solved'"):
        passport_forger("solve")
    for maker, what in ((evader, "evasion"), (washer, "washing evasion")):
        with pytest.raises(BadInput, match=f"unknown {what} 'jpg': did you mean 'jpeg'"):
            maker("jpg")
    with pytest.raises(BadInput, match="unknown washing evasion 'refuse'"):
        washer("refuse")


@pytest.mark.parametrize(
    ("name", "setting", "nearest"),
    [
        ("prune-global", "shares", "share"),
        ("fine-tune-ftll", "epoch", "epochs"),
        ("int8", "bit", "bits"),
        ("bit-depth", "bit", "bits"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(name: str, setting: str, nearest: str) -> None:
    with pytest.raises(BadInput, match=f"setting of {name} '{setting}': did you mean '{nearest}'"):
        MAKERS[name](name, **{setting: 1})


def test_the_documents_and_the_docstring_name_every_attack() -> None:
    """A family is named in one row: `fine-tune-ftll`, `-ftal`."""
    page = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
    for name in sorted({*ATTACKS, *EVASIONS, *FORGERIES, *PASSPORT_REMOVALS} - {"stack", "chain"}):
        tail = f"-{name.rpartition('-')[2]}"
        assert f"`{name}`" in page or f"`{tail}`" in page, name
        assert name in str(earmark.attacks.__doc__) or tail in str(earmark.attacks.__doc__), name
