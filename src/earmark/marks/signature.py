"""A text in keyed bits, spread by a keyed permutation: without the key, each bit is a fair coin whatever the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earmark.errors import BadInput

__all__ = ["inscribed", "octets", "require_text", "spelt"]


def require_text(signature: Any) -> None:
    """Raise `BadInput` for what is no text that UTF-8 can write."""
    try:
        signature.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise BadInput(f"signature: expected text that UTF-8 can write, got {signature!a:.80}") from error


def octets(signature: str, capacity: int, remedy: str) -> int:
    """How many bytes a text has in UTF-8.

    Raises:
        BadInput: more bits than `capacity`; `remedy` says what else to do than to shorten it.
    """
    size = len(signature.encode())
    if 8 * size > capacity:
        raise BadInput(f"the signature has {8 * size} bits and there is room for {capacity}; shorten it or {remedy}")
    return size


def inscribed(signature: str, plain: Tensor, places: Tensor) -> Tensor:
    """Keyed bits with a text in them: the n-th bit of its UTF-8, highest first, negates the one at the n-th place.

    Args:
        signature: the text.
        plain: int8 (n,), -1 or +1, drawn from the key.
        places: a permutation (n,), drawn from the key.
    """
    said = torch.tensor([int(bit) for octet in signature.encode() for bit in f"{octet:08b}"], dtype=torch.int8)
    bits = plain.clone()
    bits[places[: len(said)]] *= 1 - 2 * said
    return bits


def spelt(bits: Tensor, plain: Tensor, places: Tensor, size: int) -> str:
    """The text of `size` bytes that bits (n,) show, with a question mark for what is no UTF-8."""
    said = (bits[places[: 8 * size]] != plain[places[: 8 * size]]).to(torch.int64).view(size, 8)
    octets = bytes((said * torch.tensor([128, 64, 32, 16, 8, 4, 2, 1])).sum(1).tolist())
    return octets.decode("utf-8", "replace").replace("\ufffd", "?")
