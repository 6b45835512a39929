"""Ways to reach a model that stands accused.

| suspect | is |
|---|---|
| `as_query` | a module in memory |
| `load_model` | a module that the user's own code builds, with weights from a file |
| `OnnxModel` | an ONNX file |
| `Checkpoint` | a folder that Transformers' `save_pretrained` wrote |
| `Service` | a service on the network: `OpenInference` (v2), `HuggingFace` or `CustomJson`, asked with `Manners` |
| `Transcript` | the answers that `Recorded` kept of any of them |

`open_suspect` takes one by a short text. `Recorded` keeps answers in a file, and `Mixed` hides triggers among ordinary
images.
"""

from earmark.suspects.answers import Answer, ClassNames, Unreadable, plain
from earmark.suspects.decoys import Mixed
from earmark.suspects.forms import CustomJson, HuggingFace, OpenInference
from earmark.suspects.http import Service
from earmark.suspects.load import load_model
from earmark.suspects.manners import Manners
from earmark.suspects.module import as_query
from earmark.suspects.onnx import OnnxModel
from earmark.suspects.opening import GIVEN, kind_of_suspect, makers, open_suspect, spoken
from earmark.suspects.reached import Reached, Unreachable
from earmark.suspects.transcript import Recorded, Transcript
from earmark.suspects.transformers import Checkpoint

__all__ = [
    "GIVEN",
    "Answer",
    "Checkpoint",
    "ClassNames",
    "CustomJson",
    "HuggingFace",
    "Manners",
    "Mixed",
    "OnnxModel",
    "OpenInference",
    "Reached",
    "Recorded",
    "Service",
    "Transcript",
    "Unreachable",
    "Unreadable",
    "as_query",
    "kind_of_suspect",
    "load_model",
    "makers",
    "open_suspect",
    "plain",
    "spoken",
]
