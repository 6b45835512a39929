"""earmark proves that a neural network is yours.

An owner marks an image classifier, commits to the mark before release, and later convinces a judge, with a stated error
probability, that a suspect derives from it. Everything here is one of four nouns or of seven verbs (Fan et al. 2021,
Definition 1: embed E, fidelity F, verify V, invert I):

| who    | verb         | shape                                   | where                                      |
|--------|--------------|-----------------------------------------|--------------------------------------------|
| owner  | mint         | (key, host, data) -> mark               | `earmark.marks`                            |
| owner  | embed (E)    | (host, mark, data, rng) -> marked copy  | `earmark.embed`                            |
| anyone | fidelity (F) | (model, host, data) -> report           | `earmark.fidelity`                         |
| judge  | verify (V)   | (suspect, mark) -> verdict              | `earmark.verify`; with claims: `judge`     |
| forger | invert (I)   | (model, data, rng) -> mark              | `earmark.attacks`                          |
| thief  | remove       | (model, data, rng) -> model             | `earmark.attacks`                          |
| thief  | evade        | (query, data, rng) -> query             | `earmark.attacks`                          |

Nouns: a **model** is an `nn.Module`, or a `Query` where only answers can be had; a **mark** is what E hides and V looks
for; **data** are `Images`, in a `Data` pair of train and test; a **verdict** is a decision with everything it rests on.
"""

from earmark.core import Data, Images, Verdict, rng
from earmark.data import open_data
from earmark.errors import EarmarkError
from earmark.evidence import arbitrate, commit, judge
from earmark.fidelity import DeepFidelity
from earmark.keys import MarkKey, OwnerKey
from earmark.models import normalised
from earmark.schemes import Scheme, deep_fidelity, deepipr, function_coupled, penetrative, uchida
from earmark.suspects import as_query
from earmark.training import train_host

__all__ = [
    "Data",
    "DeepFidelity",
    "EarmarkError",
    "Images",
    "MarkKey",
    "OwnerKey",
    "Scheme",
    "Verdict",
    "arbitrate",
    "as_query",
    "commit",
    "deep_fidelity",
    "deepipr",
    "function_coupled",
    "judge",
    "normalised",
    "open_data",
    "penetrative",
    "rng",
    "train_host",
    "uchida",
]
