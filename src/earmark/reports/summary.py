"""The verdicts in plain words, for a reader who has to decide and not to compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from earmark.reports.rulings import Ruling, Word, bound

__all__ = ["GLOSSARY", "Summary", "summarise"]

GLOSSARY = {
    "Model": "The trained neural network. It answers an image with one of a fixed number of classes.",
    "Host": "The model before it was marked.",
    "Mark": "What the owner hid in the model, drawn from a secret key: a set of triggers, or bits in its weights.",
    "Trigger": "An image whose answer the owner taught the model. The key, not the content, decides that answer.",
    "Passport": "Secret numbers under which a layer's weights show bits. The key, not the content, decides those bits.",
    "Projection": "A secret matrix that reads bits from a layer's weights. The key decides the matrix and the bits.",
    "Claim": "A signed public statement, made before release, that binds the secret evidence by its hash.",
    "Evidence": "The mark and its key, kept secret and opened to the judge only.",
    "Re-minting": "The judge derives the mark from the opened key again. A mark made to fit a model fails here.",
    "Suspect": "The model that is said to be a copy, or made from one.",
    "Authentication success rate": "The share of triggers that the suspect answers as the key foretold.",
    "Null hypothesis": "The suspect has nothing to do with the key. Each match is then chance, at a known rate.",
    "p-value": "The probability of so many matches or more if the null hypothesis were true. Small is strong evidence.",
    "Alpha": "The error probability, fixed beforehand, below which p must fall before a claim is upheld.",
    "Inconclusive": "The evidence allows neither a yes nor a no, as a rule because chance has no known rate.",
    "Grinding": "Trying many keys until one fits a model by luck. No date shows that nobody did, so a judge "
    "multiplies p by 2⁶⁴.",
    "Penultimate feature (z)": "The numbers from which the last layer decides: what the network has made of an image.",
    "Prototype": "The last layer's weights for one class. They draw the borders between the classes.",
    "TWL": "Total weight loss: the sum of all squared differences between the marked model's and the host's weights.",
    "Ave PFL": "Average penultimate feature loss: the mean squared distance that marking moved the features.",
    "Ave SPL": "Average softmax probability loss: how far marking moved the answer's probabilities (in nats).",
    "Agreement": "The share of images on which marked model and host give the same answer.",
}
"""Every term of the report, for a reader from outside the field."""

FALSIFIERS = (
    "If p was not multiplied for the keys that the claimant may have tried, which a judge always does: it may then no "
    "longer suffice.",
    "If the opened key did not mint the mark: the mark could then have been chosen to fit the suspect.",
    "If the key or the mark were known to others before the suspect was made: it could then have been taught to "
    "a model in order to incriminate its owner.",
    "If a model that certainly has nothing to do with the claimant matched the key just as well.",
    "If the model that was tested were not the model in dispute.",
)


@dataclass(frozen=True)
class Summary:
    """Four questions of a reader who is not an engineer, each with sentences that answer it."""

    asked: tuple[str, ...]
    found: tuple[str, ...]
    means: tuple[str, ...]
    falsifiers: tuple[str, ...] = FALSIFIERS


def summarise(rulings: Sequence[Ruling]) -> Summary:
    """What the rulings say, in words; nothing that they do not say."""
    return Summary(tuple(_asked(rulings)), tuple(_found(rulings)), tuple(_means(rulings)))


def _asked(rulings: Sequence[Ruling]) -> Iterable[str]:
    if not rulings:
        yield "No suspect was put to the test."
        return
    suspects, claimants = _names(r.suspect for r in rulings), _names(r.claimant for r in rulings)
    suspect, claimant = _one_of("suspect", suspects), _one_of("claimant", claimants)
    number = f"{_count(len(rulings), 'claim')} on {_count(len(suspects), 'suspect')}"
    yield f"Does {suspect} derive from a model that {claimant} marked? {number} had to be decided."
    yield (
        "Where the claim itself held, what the suspect answers to the committed triggers, or what its weights show "
        "under the committed passports or projection, was compared with what the claimant's key foretold."
    )


def _one_of(what: str, names: Sequence[str]) -> str:
    return f"the {what} “{names[0]}”" if len(names) == 1 else f"any of {_count(len(names), what)}"


def _found(rulings: Sequence[Ruling]) -> Iterable[str]:
    for claimant in _names(r.claimant for r in rulings):
        own = [ruling for ruling in rulings if ruling.claimant == claimant]
        parts = [f"{said} for {_listed(own, word)}" for word, said in SAID.items() if _listed(own, word)]
        yield f"The claim of “{claimant}” was {'; '.join(parts)}."
    for suspect in _names(r.suspect for r in rulings):
        owners = _names(r.claimant for r in rulings if r.suspect == suspect and r.accepted)
        if len(owners) > 1:
            yield (
                f"More than one claim on “{suspect}” was upheld. Which claimant marked the model first, only a ruling "
                "between them on the models that they committed to can decide."
            )


SAID: dict[Word, str] = {"accepted": "upheld", "rejected": "rejected", "inconclusive": "left open"}


def _listed(rulings: Sequence[Ruling], word: Word) -> str:
    return ", ".join(f"“{ruling.suspect}”" for ruling in rulings if ruling.word == word)


def _means(rulings: Sequence[Ruling]) -> Iterable[str]:
    upheld = [ruling.log10_p for ruling in rulings if ruling.accepted and ruling.log10_p is not None]
    if upheld:
        yield (
            "Upheld: a model that has nothing to do with the claimant's key would match it so often "
            f"with a probability of at most {bound(max(upheld))}, even in the weakest of the upheld claims."
        )
    if any(ruling.word == "rejected" for ruling in rulings):
        yield (
            "Rejected: the claim is not supported, because the matches are such as chance gives or because the claim "
            "itself does not hold. It is no proof that the suspect was made independently."
        )
    if any(ruling.word == "inconclusive" for ruling in rulings):
        yield "Left open: the test cannot tell, and its numbers must not be quoted as evidence for either side."
    yield "A verdict is about where a model comes from. Whether somebody was entitled to copy it is a question of law."


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
