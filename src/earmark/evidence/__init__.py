"""Evidence that convinces a stranger: commit before release, open to a judge, who mints the mark again and rules.

| file | what it is |
|---|---|
| `Claim` | public: who, which mark, hashes, signed |
| `Bundle` | secret until a dispute: the mark and its key |
| `Slice` | some trials of it, opened for one dispute: which, says the claim with a nonce that a judge draws (`Draw`) |
| `commit` | the owner: writes both |
| `judge` | the judge: claim + evidence + suspect -> verdict |
| `arbitrate` | the judge, where several owners claim one suspect |
| `attest`, `attested` | the owner and anybody: the claim beside the released files, for supply-chain tools |
| `stamped_time` | a trusted date, from an RFC 3161 token |
"""

from earmark.evidence.arbitrate import Case, Outcome, arbitrate
from earmark.evidence.attestation import attest, attested
from earmark.evidence.bundle import Bundle
from earmark.evidence.claim import Claim, Parameters, check_text
from earmark.evidence.commit import claim_of, commit
from earmark.evidence.judge import judge
from earmark.evidence.kinds import KINDS, Kind
from earmark.evidence.slices import Draw, Slice
from earmark.evidence.timestamp import stamp_request, stamped_time

__all__ = [
    "KINDS",
    "Bundle",
    "Case",
    "Claim",
    "Draw",
    "Kind",
    "Outcome",
    "Parameters",
    "Slice",
    "arbitrate",
    "attest",
    "attested",
    "check_text",
    "claim_of",
    "commit",
    "judge",
    "stamp_request",
    "stamped_time",
]
