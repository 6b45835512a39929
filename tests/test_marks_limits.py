"""How large a mark may be: whatever is minted can be minted again, and what is too large is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from earmark.cli import app
from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import Fused, Noise, Penetrative, Stamped, TriggerMint, remint
from earmark.marks.triggers.limits import MOST_TRIGGERS, MOST_VALUES, require_mintable

KEY = MarkKey(bytes(range(32)))
WIDE = Images(torch.zeros(3, 3, 946, 946, dtype=torch.uint8), torch.arange(3), 3)
SMALL = Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.arange(3), 3)


@pytest.mark.parametrize(
    ("mint", "images", "message"),
    [
        (Noise(100), WIDE, r"268435456 pixel values.*100 images of 3x946x946 have 268474800; lower .* to 99 or less"),
        (Stamped(100), WIDE, "pixel values"),
        (Fused(30, teaching=100), WIDE, "130 images"),
        (Penetrative(30, teaching=100, search=None), WIDE, "130 images"),
        (Noise(MOST_TRIGGERS + 1), SMALL, "at most 8192 triggers.*got 8193"),
        (Fused(3, teaching=MOST_TRIGGERS + 1), SMALL, "at most 8192 images to learn from.*got 8193"),
    ],
)
def test_a_mark_that_no_judge_would_mint_again_is_not_minted(
    mint: TriggerMint, images: Images, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("draw", "paint"):
        monkeypatch.setattr(type(mint), step, lambda *_: pytest.fail("began to mint"))
    with pytest.raises(BadInput, match=message):
        mint(KEY, None, Data(images, images))
    with pytest.raises(BadInput, match=message):
        mint.make(KEY, images.shape, images.classes, images)


def test_the_limits_hold_to_the_last_image_and_pixel_value() -> None:
    require_mintable(MOST_TRIGGERS, MOST_TRIGGERS, (1, 128, 128))
    with pytest.raises(BadInput, match="pixel values"):
        require_mintable(MOST_TRIGGERS, MOST_TRIGGERS, (1, 128, 129))
    require_mintable(1, 0, (1, 1, MOST_VALUES))
    with pytest.raises(BadInput, match="to 0 or less, or bring the images to a smaller size"):
        require_mintable(1, 0, (1, 1, MOST_VALUES + 1))


def test_minting_and_minting_again_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.marks.triggers.limits.MOST_VALUES", 640)
    mark = Noise(10)(KEY, None, Data(SMALL, SMALL))
    assert remint(KEY, mark).digest() == mark.digest()
    with pytest.raises(BadInput, match="pixel values"):
        Noise(11)(KEY, None, Data(SMALL, SMALL))
    monkeypatch.setattr("earmark.marks.triggers.limits.MOST_VALUES", 639)
    with pytest.raises(BadInput, match="pixel values"):
        remint(KEY, mark)


def test_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    OwnerKey.generate().save(tmp_path / "key.pem", b"x")
    (tmp_path / "password").write_text("x")
    arguments = (
        f"--key {tmp_path}/key.pem --password-file {tmp_path}/password --name m --out {tmp_path}/mark.safetensors"
    )
    result = CliRunner().invoke(app, f"mint {arguments} --data digits --count {MOST_TRIGGERS + 1}".split())
    assert result.exit_code == 2
    assert "at most 8192 triggers" in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("mark*"))
