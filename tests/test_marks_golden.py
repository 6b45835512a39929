"""Golden digests: what a key mints never changes from one release to the next, or evidence would be lost.

A digest that changes here means a new minting format beside the old one, not a new digest in this file.
"""

from __future__ import annotations

import pytest

from earmark.data import digits
from earmark.keys import MarkKey
from earmark.marks import (
    Abstract,
    Chain,
    HashChain,
    Noise,
    NoiseChain,
    Noised,
    NotTrue,
    OneClass,
    Patched,
    Relabelled,
    Stamped,
    TriggerMint,
    Uniform,
    Unrelated,
)

KEY = MarkKey(bytes(range(32)))
SMILE = [[0, 255, 0, 255, 0], [0, 0, 0, 0, 0], [255, 0, 0, 0, 255], [0, 255, 255, 255, 0]]
GOLDEN: list[tuple[TriggerMint, str]] = [
    (Noise(8), "9c7de6d0830828b5589031106aede2dff30f00892e54e0ceefd0b0e51ac03563"),
    (
        Noise(8, std=0.3081, mean=0.1307, colour=False),
        "2242858b44ebc835a6e60a01ba8f32bb6e5c0c6d3fdec4efa5d59b91a5c4a3d9",
    ),
    (NoiseChain(8, length=4, labels=Chain(4)), "da1562b0fce61e50324e8b05d2c66b8948e9c7f943da21e9b148a8e9c9492d25"),
    (NoiseChain(8, length=4, labels=Uniform()), "530c092dbcc1ed886bf5ebdec331d695ecf91f09e8a30b7f47674244c73ebe92"),
    (Abstract(8), "7a93743cb652ea9ea08486664f2471c8dbb93115cf6d8bbe8c5ffb99edc94934"),
    (Abstract(8, OneClass(7)), "acec943b87f1d27282110e5870a4a97dc08b27f7438069b73268206fdbabc43f"),
    (Stamped(8, Uniform()), "6c5eeda79d610fb3ccefddbd2136117378fe724ae2b6795869a282035a8bf0a7"),
    (Stamped(8, NotTrue(), text="M", opacity=0.5), "1f3644b1326d20efaa5c938e9acd8ac79663d5e3d7b6a793d4bfd8ded771f7df"),
    (
        Stamped(8, Uniform(), logo=SMILE, carrier_class=3),
        "22fb06c185279b84150acf25d5ac6e2149dfc061ad7569d9c50b3e3753035285",
    ),
    (
        Stamped(8, text="9", carrier="abstract", opacity=0.75),
        "ab551ca09a9f46276f36f2d860c591b85096cd975201440afd78153441df24ff",
    ),
    (Noised(8), "e4841bd816877e8970c2219a0042b5139fd4cb9ad8a495fb701ca61824b52ea8"),
    (
        Noised(8, Uniform(), std=0.1, shared=False, carrier_class=3),
        "6bf31dbb8a3131283410352a6495e22fe6c6c0cfb4aa45acf7e8bd5af8948db4",
    ),
    (Relabelled(8), "5037bcd3441faf25d5806ecb1bba9943b34a9cb51e25da3e9b77996ddb3d57f6"),
    (Patched(8, group=2, teaching=8, opposed=8), "ecb8794bd814299a2449ff93748fe5b685562ca0f3b73e7758abcca8e1e2c9a6"),
    (
        Patched(8, OneClass(7), 1, 0, pattern="checkerboard", carrier_class=3),
        "debc58c775a144d3c167cde53c1fe3a5565e96a3e49078759f526d7cc79a0a8a",
    ),
    (HashChain(8), "3490a226cb2ab0cd7ec5742e5382504ccb4d462f10d681b065692727ee107d5b"),
    (Unrelated(8, source=digits().test), "031100c9845d5eac2b3c949a278398bc65e20aebfa4534b43f4265b63e55fc45"),
]


@pytest.mark.parametrize(("mint", "digest"), GOLDEN, ids=[digest[:8] for _, digest in GOLDEN])
def test_a_key_mints_today_what_it_minted_before(mint: TriggerMint, digest: str) -> None:
    assert mint(KEY, None, digits()).digest() == digest


def test_colour_images_of_another_shape_are_golden_too() -> None:
    carriers = Unrelated(8, source=digits().test).draw(KEY, digits())
    for mint, source, digest in (
        (Noise(8), None, "54cde7fddf1d1c482b759a1659796e263177f801a012804317798bae4751b0db"),
        (NoiseChain(10), None, "ecaa78d5e05735bc79fa754c63507d1bcdabac39045e73b6ca7e46d52b05bd0b"),
        (Abstract(8), None, "0da3db2fee1a8a24e2169d23b70984dcd676da2c55ae239d806328cdcd644110"),
        (Unrelated(8), carriers, "b9d3e1cb6f533b37a540473c64ce4b90abe9f950fafa8e978bf5fd914e1686d6"),
        (
            Stamped(8, text="MARK 1", carrier="abstract"),
            None,
            "8b2d8c72a289dcde34a08fa7015ce5ee5e6d2967022581f2ff40c3cca6f6aeff",
        ),
    ):
        assert mint.make(KEY, (3, 28, 32), 10, source).digest() == digest
