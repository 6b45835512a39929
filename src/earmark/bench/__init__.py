"""Measuring: which mark survives what, at what cost to the thief; and what all measurements share.

```python
from functools import partial

from earmark import deep_fidelity, open_data, uchida
from earmark.bench import Grid, named_attack, run
from earmark.models import PlainCNN

grid = Grid(
    data=partial(open_data, "digits"),
    build=partial(PlainCNN, (1, 8, 8), 10),
    schemes={"deep fidelity": deep_fidelity(), "uchida": uchida()},
    attacks={"int8": named_attack("int8"), "pruned by half": named_attack("prune-global", share=0.5)},
)
cells = run(grid, "bench", workers=2)
```

A grid is a value; `run` measures each of its cells once, whatever kills it in between. Schemes and attacks are any that
keep to the verbs of `earmark.core`, those of the caller's own among them (`own_attack`).

Here are also the folders that resume (`bench.store`), the images by name (`bench.sources`) and the machine
(`bench.hardware`) that the papers' tables are measured with.
"""

from earmark.bench.attack import Attack, attack_names, bare_attacks, named_attack, own_attack, swept
from earmark.bench.grid import Grid, Task
from earmark.bench.ledger import RESULTS, Ledger, read_cells
from earmark.bench.plan import Plan, Progress
from earmark.bench.presets import PRESETS, Preset, read_preset
from earmark.bench.record import Accuracy, Cell, Evidence, Point, Spending, schema
from earmark.bench.running import ENGINES, run
from earmark.bench.scheme import bare_schemes, named_scheme, scheme_settings

__all__ = [
    "ENGINES",
    "PRESETS",
    "RESULTS",
    "Accuracy",
    "Attack",
    "Cell",
    "Evidence",
    "Grid",
    "Ledger",
    "Plan",
    "Point",
    "Preset",
    "Progress",
    "Spending",
    "Task",
    "attack_names",
    "bare_attacks",
    "bare_schemes",
    "named_attack",
    "named_scheme",
    "own_attack",
    "read_cells",
    "read_preset",
    "run",
    "schema",
    "scheme_settings",
    "swept",
]
