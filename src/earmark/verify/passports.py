"""The test of passports on a network's weights: which bits the signs of its scales show, and how likely by chance."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from earmark.core import Images, Null, Query, Verdict
from earmark.errors import CannotCarry, number
from earmark.layers import expose, protect
from earmark.marks import Passports
from earmark.models.modes import is_batchnorm
from earmark.training import accuracy
from earmark.verify.alignment import ALIGNED, align
from earmark.verify.answers import NoAnswer, foreign
from earmark.verify.bits import Count, count_bits, unread_bits
from earmark.verify.triggers import check_settings

__all__ = ["PassportTest", "PublishedPassportTest", "presented"]


@final
@dataclass(frozen=True)
class PassportTest:
    """Read the signature from the weights and test the number of right bits exactly.

    With k of n bits right, p = min(1, 2^g P(X >= k)), X ~ Binomial(n, 1/2), where g are the grinding bits: for a
    network that has nothing to do with the key, its signs are n independent guesses of bits that the key drew after the
    passports were fixed. That they were is the judge's to check, by minting the mark again. A scale of 0 is a wrong
    bit. Nothing is read from the suspect's norms: a plain scale is no passport (Fan et al. 2021, Algorithm 3). Where
    the mark's bits are signs of products (`PassportMint.scale`), the norm's scale is one factor, and never a bit alone.

    The paper's verification also asks for fidelity (Definition 1): the accuracy with the passports presented may differ
    by no more than epsilon_f from the accuracy without. It is measured on the mark's witnesses where the suspect takes
    their images and has their classes. By default it is reported and does not decide: whoever changes the public path
    alone, without knowing any passport, breaks it, and the owner's bits are no weaker for that.

    A thief can flip, move, rescale, fold and pad channels at no cost, and such a network shows half of the bits. With
    the network that the owner `released`, its channels are matched first (`alignment.align`) where the plain reading
    does not accept. As there are two readings, p is doubled for both. The aligned one has a calibrated null, and it is
    evidence of a common origin only: whoever flips the channels of a network that he found so that they show his own
    bits, and calls it his release, is "found" in the original by it. So a judge compares with a released network only
    where the claim is known to be older than the suspect, and who is accused by it should show what the suspect was
    made of.

    The verdict accepts where p <= alpha (and, with `strict`, where fidelity holds). `details` holds `matches`,
    `unanswered` (all bits where none can be read), `share` (the paper's detection rate, over all bits), `layers` (the
    share of each), `exact` (whether all bits are right), `hamming`, `critical_count`, `grinding_bits`,
    `log10_p_before_grinding`, `reading` ("plain" or "aligned", the one with the smaller p), `fidelity` (None where it
    cannot be measured; else the percentages `public` and `private`, `epsilon` and `holds`) and, where alignment was
    tried, `alignment` (`share`, `counted` channels and the median `cosine`, or why it failed).

    Attributes:
        alpha: the error probability to keep to.
        grinding_bits: g; 0 for an owner, `stats.GRINDING_BITS` for a judge.
        strict: whether fidelity must hold as well.
        released: the network that the owner released; None to read weights as they stand.

    Raises:
        BadInput: alpha outside (0, 1) or negative bits.
    """

    alpha: float = 1e-6
    grinding_bits: int = 0
    strict: bool = False
    released: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_settings(self.alpha, self.grinding_bits, 1)

    def __call__(self, suspect: Query | nn.Module, mark: Passports) -> Verdict:
        if not isinstance(suspect, nn.Module):
            return self._unread(mark, "passports are read from weights, and this suspect only answers queries")
        plain = self._plain(suspect, mark)
        if self.released is None or plain.accepted:
            return plain
        try:
            found = align(suspect, self.released, mark)
        except torch.OutOfMemoryError:
            raise
        except (CannotCarry, RuntimeError, ValueError, TypeError) as error:
            return replace(plain, details={**plain.details, "alignment": str(error)})
        aligned = self.judged(found.shown, mark, plain.details.get("fidelity"), ALIGNED)
        tried = {"share": aligned.details["share"], "counted": found.counted, "cosine": found.cosine}
        better = min(plain, aligned, key=lambda verdict: verdict.log10_p or 0.0)
        return replace(better, details={**better.details, "alignment": tried})

    def _plain(self, suspect: nn.Module, mark: Passports) -> Verdict:
        try:
            with foreign(CannotCarry):
                shown = mark.shown(suspect)
        except (CannotCarry, NoAnswer) as error:
            return self._unread(mark, str(error))
        return self.judged(shown, mark, _fidelity(suspect, mark))

    def judged(
        self, shown: Tensor, mark: Passports, fidelity: Mapping[str, Any] | None, null: Null | None = None
    ) -> Verdict:
        """The verdict on the bits (n,) that a suspect shows, 0 for none; of an aligned reading if a null is given."""
        readings = 1 if self.released is None else 2
        count = count_bits(shown, mark, self.alpha, self.grinding_bits, readings)
        details = {
            **count.details,
            "layers": [float(layer.float().mean()) for layer in mark.split(shown == mark.bits)],
            "reading": "plain" if null is None else "aligned",
            "fidelity": fidelity,
        }
        accepted, reason = self._ruled(count, fidelity)
        if null is not None:
            reason = f"with its channels matched to the released network's, {reason}"
        return Verdict(accepted, count.matches, count.n, null or mark.null, count.log10_p, self.alpha, reason, details)

    def _ruled(self, count: Count, fidelity: Mapping[str, Any] | None) -> tuple[bool | None, str]:
        accepted, reason = count.ruled("protect more layers")
        if accepted is None:
            return None, reason
        if fidelity is None:
            return (accepted and not self.strict), reason + "; fidelity cannot be measured on this suspect"
        apart = f"accuracy {fidelity['private']:.1f} % with the passports and {fidelity['public']:.1f} % without"
        reason += f"; {apart}, {'within' if fidelity['holds'] else 'not within'} {fidelity['epsilon']:g} points"
        return (accepted and (fidelity["holds"] or not self.strict)), reason

    def _unread(self, mark: Passports, why: str) -> Verdict:
        return unread_bits(mark, why, self.alpha, self.grinding_bits)


@final
@dataclass(frozen=True)
class PublishedPassportTest:
    """Verification as published, which forged passports pass: INSECURE, there to show what forgeries are worth.

    Fan et al. 2021, Definition 1 and Algorithm 3: the signs of <W, S> of whatever passports are presented agree with
    whatever bits are presented, and the accuracy with the passports is within epsilon_f of the one without. No key has
    to mint the passports, and whoever has the weights solves for some that pass (`attacks.SolvedPassports`). Rule on
    claims with `PassportTest`, after minting again, as `evidence.judge` does.

    What is added to the paper is alpha: as many bits must be right as guessing has with that probability.

    Attributes:
        bits_needed: the share of bits that must agree; the paper says all, and its tables report the mean.
        alpha: the error probability to keep to.

    Raises:
        BadInput: a share or alpha out of range.
    """

    bits_needed: float = 1.0
    alpha: float = 1e-6

    def __post_init__(self) -> None:
        number("bits_needed", self.bits_needed, 0, 1)
        check_settings(self.alpha, 0, 1)

    def __call__(self, suspect: Query | nn.Module, mark: Passports) -> Verdict:
        verdict = PassportTest(self.alpha, strict=True)(suspect, mark)
        enough = verdict.statistic >= self.bits_needed * len(mark)
        accepted = bool(verdict.accepted) and enough
        reason = f"by the published test, which forged passports can pass: {verdict.reason}"
        return replace(verdict, accepted=accepted, reason=reason)


def _fidelity(suspect: nn.Module, mark: Passports) -> dict[str, Any] | None:
    some = mark.witnesses
    if some is None:
        return None
    try:
        with foreign():
            public = 100 * accuracy(suspect, some)
            shown = [100 * accuracy(one, some) for one in presented(suspect, mark, some)]
    except NoAnswer:
        return None
    private = min(shown, key=lambda value: abs(value - public))
    epsilon = mark.tolerance
    return {"public": public, "private": private, "epsilon": epsilon, "holds": abs(public - private) <= epsilon}


def presented(suspect: nn.Module, mark: Passports, images: Images) -> list[nn.Module]:
    """A plain network with the passports presented: gamma and beta made of its own convolutions in its norms.

    A network with batch norm has statistics of its public path alone, so that there are two: one with these, and one
    with statistics of `images`.

    Raises:
        CannotCarry: a network without the mark's layers.
    """
    example = images.pixels[:1].float() / 255
    own = expose(protect(copy.deepcopy(suspect), mark.layers(), example, public=False), "private")
    if not any(is_batchnorm(module) for module in own.modules()):
        return [own]
    return [own, _with_statistics_of(images, own)]


def _with_statistics_of(images: Images, model: nn.Module) -> nn.Module:
    """A copy whose batch norms hold the statistics of these images, gathered in one pass."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if is_batchnorm(module):
            module.reset_running_stats()  # type: ignore[operator]
            module.momentum = None  # type: ignore[assignment]
            module.train()
    with torch.no_grad():
        for seen, _ in images.batches(256):
            if len(seen) > 1:
                model(seen.to(next(model.parameters())))
    return model.eval()
