"""What a verdict says, in sentences for somebody who has to decide and not to compute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from earmark.core import Verdict
from earmark.evidence import Claim
from earmark.reports.rulings import bound

__all__ = ["Reasons", "chance_in_words", "reasons"]

HEADLINES: Final = {
    True: "Yes. The claim is upheld.",
    False: "No. The claim is not upheld.",
    None: "Left open. The evidence allows neither a yes nor a no.",
}
UNASKED: Final = frozenset({"files", "signature", "commitment", "slice", "re-minting", "time"})
"""The steps at which a claim falls before the suspect is asked anything."""
STEPS: Final = {
    "files": "the files themselves, which were damaged or not of the format",
    "signature": "the signature of the claim",
    "commitment": "whether what was opened is what the claim commits to",
    "slice": "whether the opened trials are those that the nonce chooses",
    "re-minting": "whether the opened key makes these very images and labels again",
    "time": "the dates",
    "suspect": "the answers of the suspect",
    "arbitration": "the comparison with the other claims",
}
WEIGHED: Final = {
    "minted_again": "Minted again",
    "own_mark_in_the_others_model": "This mark in the other's model",
    "the_others_mark_in_own_model": "The other's mark in this model",
    "own_time": "This claim's time rests on",
    "the_others_time": "The other's time rests on",
    "decided_by": "Decided by",
}
"""The facts between two claims, as the page calls them."""
Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reasons:
    """The parts of a ruling on one claim, each as sentences or as named facts; nothing that the verdict does not say.

    Attributes:
        headline: the ruling in one sentence.
        odds: the probability in one sentence; empty where there is none.
        question: what had to be decided.
        committed: what was committed to, when, and what that time rests on.
        asked: what the suspect was asked.
        returned: what came back.
        chance: how likely an innocent model would have done this.
        between: for each other claimant a sentence that says what decided, and the facts that were weighed.
        doubts: what could still be wrong.
        check: what it takes to check the ruling.
    """

    headline: str
    odds: str
    question: tuple[str, ...]
    committed: Rows
    asked: tuple[str, ...]
    returned: tuple[str, ...]
    chance: tuple[str, ...]
    between: tuple[tuple[str, Rows], ...]
    doubts: tuple[str, ...]
    check: Rows


def reasons(claimant: str, verdict: Verdict, claim: Claim | None, evidence_digest: str = "") -> Reasons:
    """The sentences of a verdict on a claim."""
    told = verdict.details
    heard = told["step"] not in UNASKED
    return Reasons(
        HEADLINES[verdict.accepted],
        _odds(verdict),
        tuple(_question(claimant, claim)),
        tuple(_committed(claim, told)),
        tuple(_asked(verdict, claim)) if heard else ("Nothing. The claim fell before the suspect was asked.",),
        tuple(_returned(verdict)) if heard else ("Nothing was asked, so nothing came back.",),
        tuple(_chance(verdict)) if heard else ("No probability follows, because nothing was asked.",),
        tuple(_between(told)),
        tuple(_doubts(verdict, heard)),
        tuple(_check(verdict, claim, evidence_digest)),
    )


def _odds(verdict: Verdict) -> str:
    if verdict.log10_p is None:
        return ""
    return f"The probability that an innocent model would do this well: {_at_most(verdict.log10_p)}."


def _at_most(log10_p: float) -> str:
    """A p-value as a bound; of one that reached its limit, 1 is said and no bound."""
    return f"at most {bound(log10_p)}" if log10_p < 0 else "1"


def _question(claimant: str, claim: Claim | None) -> Iterator[str]:
    if claim is None:
        yield f"The files of the claimant “{claimant}” could not be read as a claim."
        return
    yield (
        f"“{claimant}” says to have hidden the mark “{claim.mark}” in a model and to have committed to it. Does the "
        "suspect derive from that model?"
    )


def _committed(claim: Claim | None, told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if claim is None:
        return
    yield "In whose name", f"{claim.owner} (anybody can write a name; the public key below is what counts)"
    yield "What", f"{_what(claim)}, hidden by the scheme {claim.scheme}"
    yield "How it is bound", "by salted hashes in a signed statement: nothing in it can be changed afterwards unseen"
    yield "When, as the claim says", claim.time
    yield "What that time rests on", told.get("time", "nothing that was examined")
    yield "Against the suspect", f"the commitment is {told.get('commitment', 'of unknown age')}"
    if "released" in told:
        yield "The model as released", told["released"]


def _what(claim: Claim) -> str:
    facts = claim.parameters
    if claim.kind == "triggers":
        return (
            f"{facts.n} secret questions, images that a marked model answers with one of {facts.classes} classes each"
        )
    return f"{facts.n} secret bits in the weights of a model"


def _asked(verdict: Verdict, claim: Claim | None) -> Iterator[str]:
    if claim is not None and claim.kind != "triggers":
        yield f"Nothing: {verdict.n} bits were read from the suspect's weights with the opened key."
        return
    part = verdict.details.get("slice")
    if part is not None:
        yield (
            f"Of {part['of']} secret trials {part['opened']} were opened for this dispute; the others stay secret. "
            f"Which they are, the claim and a number decide (the nonce below), drawn by {part['drawn_by']}."
        )
    drawn = verdict.null.basis == "exact"
    foretold = "the owner's key had foretold one answer" if drawn else "the evidence had one answer, which no key drew,"
    yield (
        f"{verdict.n} trials were put to the suspect: images, sent as any user would send them. For each, {foretold} "
        "beforehand; the suspect was not told which."
    )


def _returned(verdict: Verdict) -> Iterator[str]:
    rate = verdict.null.rate
    yield f"{verdict.statistic:g} of {verdict.n} answers were the foretold ones."
    if rate is not None and verdict.null.basis == "exact":
        yield f"By guessing alone, {verdict.n * rate:.3g} of {verdict.n} would be expected, one in {1 / rate:.3g}."
    elif rate is not None:
        yield f"Of an innocent model, {verdict.n * rate:.3g} of {verdict.n} are taken to be expected at most."
    if silent := verdict.details.get("unanswered"):
        yield f"{silent} images got no usable answer. They count against the claim."
    if "scores" in verdict.details:
        form = "scores for the classes" if verdict.details["scores"] else "labels alone, no scores"
        yield f"The suspect gave {form}."


def _chance(verdict: Verdict) -> Iterator[str]:
    if verdict.log10_p is None:
        yield "Chance has no known rate for this kind of mark, so no probability can be given."
        yield verdict.null.words
        return
    yield (
        "The probability that a model which has nothing to do with the owner's key would do this well or better: "
        f"{_at_most(verdict.log10_p)}, {chance_in_words(verdict.log10_p)}."
    )
    bits, error = verdict.details.get("grinding_bits"), verdict.details.get("calibration_error")
    if error is not None:
        yield (
            f"Of this number {error:.3g} stands for the next innocent model's being unlike all that were asked. That "
            "part is for one commitment: who has made several and shows the one that fits has as many chances."
        )
        yield _shared(verdict)
    if bits and error is not None:
        yield (
            f"The rest is already multiplied by 2 to the power of {bits}, for keys that the claimant may have tried."
        )
    elif bits:
        yield (
            f"This number is already multiplied by 2 to the power of {bits}, in the suspect's favour, for everything "
            "that the claimant may have tried in secret until something fitted."
        )
    limit = f"1 in {1 / verdict.alpha:,.0f}" if verdict.alpha <= 0.5 else f"{verdict.alpha:g}"
    crossed = "It lies below" if verdict.log10_p <= math.log10(verdict.alpha) else "It does not lie below"
    yield f"{crossed} the limit of {limit}, to which the claim is held."
    yield verdict.null.words


def _shared(verdict: Verdict) -> str:
    made, alpha = verdict.details.get("commitments", 1), verdict.details.get("alpha_of_all", verdict.alpha)
    if made == 1:
        return "The judge was told of no other commitment that could have been shown instead."
    return (
        f"The judge was told of {made} commitments that could have been shown. Each may err with "
        f"{alpha:g} / {made} (Bonferroni), so that together they err no more often than with {alpha:g}."
    )


def chance_in_words(log10_p: float) -> str:
    """A small probability in words.

    >>> chance_in_words(-21.4)
    'less than one in N, where N is a 1 followed by 21 zeros; a fair coin that shows heads 71 times in a row is as rare'
    >>> chance_in_words(-0.5)
    'about 32 times in 100'
    >>> chance_in_words(0.0)
    'so this result is no evidence at all'
    """
    if log10_p == 0:
        return "so this result is no evidence at all"
    if log10_p > -2:
        return f"about {100 * 10**log10_p:.2g} times in 100"
    heads = math.floor(-log10_p / math.log10(2))
    return (
        f"less than one in N, where N is a 1 followed by {math.floor(-log10_p)} zeros; a fair coin that shows heads "
        f"{heads} times in a row is as rare"
    )


def _between(told: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    for rival, why in told.get("against", {}).items():
        facts = told.get("weighed", {}).get(rival, {})
        yield (
            f"Against “{rival}”: {why}.",
            tuple((WEIGHED[name], str(facts[name])) for name in WEIGHED if name in facts),
        )


def _doubts(verdict: Verdict, heard: bool) -> Iterator[str]:
    told = verdict.details
    if not heard:
        yield (
            "That a claim fell at this step says nothing about the suspect. With the original files, or by another "
            "claim, the question can be asked again."
        )
        return
    if verdict.accepted is False and told["step"] == "arbitration":
        yield "The mark is in the suspect all the same. It lost to a claim that was there before it, not to chance."
    elif verdict.accepted is False:
        yield "A rejection does not show that the suspect was made independently. A mark can be removed by retraining."
    yield (
        "The key or the opened images may have been known to others. Whoever knew them could have taught them to a "
        "model in order to incriminate its owner."
    )
    if str(told.get("time", "")).startswith("the owner's word"):
        yield (
            "Nobody but the owner vouches for the time of the claim. If the date matters, ask for a time-stamp token, "
            "the entry of a public log or a notary's record."
        )
    part = told.get("slice")
    if part is not None and part["drawn_by"] != "the judge":
        yield "The judge did not draw the number that chose the trials; the probability pays for that in full."
    if verdict.null.basis == "calibrated":
        yield "The rate of chance was measured on innocent models and is not exact by construction."
    if "calibration_error" in told:
        yield (
            "The claimant may have known the innocent models, or may have committed to other marks as well and shown "
            "the one that fits this suspect. The probability pays for neither, and the limit for no more than the "
            f"{_told(told)} that the judge was told of: ask how many claims there are."
        )
    yield "The model that was tested may not be the model in dispute. Its digest is given below, where it had one."
    yield "Who stands behind the public key has to be shown by other means, and so does who trained the model."
    yield "A copy may be licensed. Where a model comes from is a question of fact; whether it was allowed, one of law."
    if not told.get("against"):
        yield "Somebody else may have marked the model first. A ruling between several claims needs all of them."


def _told(told: Mapping[str, Any]) -> str:
    made = told.get("commitments", 1)
    return "one commitment" if made == 1 else f"{made} commitments"


def _check(verdict: Verdict, claim: Claim | None, evidence_digest: str) -> Iterator[tuple[str, str]]:
    yield "The step that decided", STEPS.get(str(verdict.details["step"]), str(verdict.details["step"]))
    yield "Limit (alpha)", f"{verdict.alpha:g}"
    if "commitments" in verdict.details:
        yield "Commitments that could have been shown", str(verdict.details["commitments"])
    if verdict.log10_p is not None:
        yield "log10 of the probability p", f"{verdict.log10_p:.4f}"
    if claim is not None:
        yield "Public key (Ed25519)", claim.public_key
        yield "Digest of the released model", claim.marked_digest
        yield "Digest of the committed evidence", claim.evidence_digest
        if claim.slice_root is not None:
            yield "Root over all trials", claim.slice_root
        if part := verdict.details.get("slice"):
            yield "Nonce that chose the trials", part["nonce"]
        yield "Signature of the claim", claim.signature
    if evidence_digest:
        yield "Digest of what was opened", evidence_digest
