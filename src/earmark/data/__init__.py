"""Images as uint8 tensors, from wherever they are.

| function | reads |
|---|---|
| `digits()` | scikit-learn's handwritten digits, nothing to download |
| `idx(dir)` | MNIST and its relatives |
| `folder(dir)` | one sub-folder of images per class |
| `npz(file)` | NumPy archives in the layout of Keras or MedMNIST |
| `open_data(text)` | any of these by a short text, `digits` or `idx:DIR` |
| `from_dataset(dataset)` | torchvision, Hugging Face, any PyTorch Dataset or DataLoader |

`split` cuts one set into train and test, `only` takes some classes, `drawn` some images; `CropFlip` augments batches;
`corrupted` and `ood` make images that a model was not trained for; `resized` and `channels_to` change shapes, the same
way on every machine.
"""

from earmark.data.augment import CropFlip
from earmark.data.choosing import drawn, only
from earmark.data.convert import channels_to, resized
from earmark.data.corrupt import CORRUPTIONS, corrupted, ood
from earmark.data.datasets import from_dataset
from earmark.data.embedded import digits
from earmark.data.folders import folder
from earmark.data.idx_files import idx
from earmark.data.npz_files import npz
from earmark.data.opening import open_data
from earmark.data.splits import split

__all__ = [
    "CORRUPTIONS",
    "CropFlip",
    "channels_to",
    "corrupted",
    "digits",
    "drawn",
    "folder",
    "from_dataset",
    "idx",
    "npz",
    "only",
    "ood",
    "open_data",
    "resized",
    "split",
]
