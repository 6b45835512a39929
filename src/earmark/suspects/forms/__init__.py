"""What services speak: how pixels are put to them, and how their answers are read."""

from earmark.suspects.forms.base import Form
from earmark.suspects.forms.custom import CustomJson
from earmark.suspects.forms.hugging_face import HuggingFace
from earmark.suspects.forms.open_inference import OpenInference

__all__ = ["CustomJson", "Form", "HuggingFace", "OpenInference"]
