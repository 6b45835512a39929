"""Images as uint8 tensors, from wherever they are.

| function | reads |
|---|---|
| `digits()` | scikit-learn's handwritten digits, nothing to download |
| `idx(dir)` | MNIST and its relatives |
| `folder(dir)` | one sub-folder of images per class |
| `open_data(text)` | any of these by a short text, `digits` or `idx:DIR` |
"""

from earmark.data.embedded import digits
from earmark.data.folders import folder
from earmark.data.idx_files import idx
from earmark.data.opening import open_data
from earmark.data.splits import split

__all__ = ["digits", "folder", "idx", "open_data", "split"]
