"""A paper's table beside ours: the paper's value, then the mean and the spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from earmark.errors import BadInput
from earmark.reports.tables import ABSENT, Table, number, spread

__all__ = ["Pair", "Reproduction", "Row"]

HEADINGS = {
    "val_acc": "Val acc (%)",
    "trig_acc": "Trigger acc (%)",
    "twl": "TWL",
    "ave_pfl": "Ave PFL",
    "ave_spl": "Ave SPL",
    "prototype_change": "Prototype change",
    "relative_pfl": "Relative PFL",
    "agreement_test": "Agreement, test (%)",
    "agreement_corrupted": "Agreement, corrupted (%)",
    "agreement_ood": "Agreement, ood (%)",
    "seconds": "Seconds",
    "asr": "Triggers answered as marked (%)",
    "won": "Groups won (%)",
    "log10_p": "log10 p",
    "worst_log10_p": "log10 p, weakest where 5 points are kept",
    "taught": "Taught fusions (%)",
    "host_asr": "The unmarked host's answers (%)",
    "host_val_acc": "The unmarked host's acc (%)",
    "innocent_asr": "After the unmarked host's extraction (%)",
    "new_asr": "The thief's own triggers (%)",
    "new_acc": "Acc on the thief's task (%)",
    "preserved": "Accuracy preserved, of the host's (%)",
    "fine_tuned": "After fine-tuning (%)",
    "transferred": "After transfer (%)",
    "pruned": "After pruning 80 % (%)",
    "overwritten": "After overwriting (%)",
    "fine_tuned_val_acc": "Val acc after fine-tuning (%)",
    "pruned_val_acc": "Val acc after pruning 80 % (%)",
    "overwritten_val_acc": "Val acc after overwriting (%)",
    "attacked_log10_p": "log10 p, weakest after an attack",
    "ac": "Triggers (%)",
    "ac_shadow": "Triggers through a shadow (%)",
    "ac_unseen": "Triggers through unseen autoencoders (%)",
    "val_acc_unseen": "Val acc through them (%)",
    "log10_printed": "log10 of the printed probability",
    "log10_printed_unseen": "the same through them",
    "log10_chernoff_unseen": "log10 of the true minimum, through them",
    "log10_p_unseen": "log10 p through them",
    "moved": "Mean (T - P)^2",
    "minutes": "Minutes a stamp",
    "error_shadow": "Error per image, shadows",
    "error_unseen": "Error per image, unseen",
    "gradient_spread": "Spread of the shadows' gradients",
    "host_val_acc_unseen": "The unmarked host's acc through them (%)",
    "acc": "Acc (%)",
    "kappa": "To the baseline (points)",
    "private_acc": "Acc with passports (%)",
    "detected": "Bits detected (%)",
    "triggers": "Triggers (%)",
    "forged_acc": "Acc with others' passports (%)",
    "best_forged_acc": "the best of them (%)",
    "forged_detected": "Their bits (%)",
    "best_forged_detected": "the best of those (%)",
    "forged_drop": "Acc with forged passports, to the owner's (points)",
    "unlike_owner": "Bits unlike the owner's (%)",
    "owner_detected": "The owner's bits, still detected (%)",
    "real": "The owner's, detected (%)",
    "forged": "The forger's, detected (%)",
    "published": "Accepted as published (%)",
    "judged": "Accepted by the judge (%)",
    "train_x": "Training step (x)",
    "infer_x": "Inference (x)",
    "passport_needed": "Passport needed to infer (1: yes)",
    "black_box": "Verified by queries (1: yes)",
    "weakest_log10_p": "log10 p, weakest through what costs 3 points or less",
}
"""How a metric is headed; a metric that is not named here is headed by its own name."""


@dataclass(frozen=True)
class Pair:
    """One metric of one method: the number that the paper prints, and ours, one a seed. Units as in the paper."""

    paper: float | None
    ours: tuple[float | None, ...]

    def __str__(self) -> str:
        return f"{number(self.paper)} / {spread(self.ours)}"


@dataclass(frozen=True)
class Row:
    """One method and its metrics by name."""

    method: str
    metrics: Mapping[str, Pair]

    @property
    def seeds(self) -> int:
        """The largest number of seeds that any metric was measured with."""
        return max((len(pair.ours) for pair in self.metrics.values()), default=0)


@dataclass(frozen=True)
class Reproduction:
    """One table of a paper, reproduced in one setting at one scale.

    >>> row = {"method": "FTAL", "metrics": {"val_acc": {"paper": 99.24, "ours": [99.1, 99.3]}}}
    >>> found = {"table": "table4", "setting": "mnist_d2", "scale": "cpu", "rows": [row]}
    >>> Reproduction.from_dict(found).to_table().rows
    (('FTAL', '99.24 / 99.2 ± 0.14', '2'),)
    """

    table: str
    setting: str
    scale: str
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    hardware: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Reproduction:
        """What a recipe wrote as JSON.

        Raises:
            BadInput: a part is missing or of another type; the message names it.
        """
        try:
            rows = tuple(_row(row) for row in value["rows"])
            names = (str(value["table"]), str(value["setting"]), str(value["scale"]))
            notes = tuple(str(note) for note in value.get("notes", ()))
            return cls(*names, rows, dict(value.get("settings", {})), _text(value.get("hardware", "")), notes)
        except KeyError as error:
            raise BadInput(f"a reproduced table lacks {error}; write it with `earmark reproduce`") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput(f"a reproduced table is malformed ({error}); write it with `earmark reproduce`") from error

    @property
    def title(self) -> str:
        """Which table, setting and scale this is."""
        return f"{self.table}, {self.setting}, scale {self.scale}"

    def to_table(self) -> Table:
        """One column a metric, each cell "paper / ours"."""
        metrics = list(dict.fromkeys(name for row in self.rows for name in row.metrics))
        columns = ("Method", *(HEADINGS.get(name, name) for name in metrics), "Seeds")
        rows = tuple(_cells(row, metrics) for row in self.rows)
        caption = "Each cell: the paper's value / ours, mean ± standard deviation over seeds."
        return Table(columns, rows, self.title, caption)

    def to_markdown(self, level: int = 2) -> str:
        """Heading, table, then the settings, hardware and notes that the numbers rest on."""
        facts = [*self.settings.items(), *([("hardware", self.hardware)] if self.hardware else [])]
        bullets = [f"- {name}: {_text(value)}" for name, value in facts] + [f"- {note}" for note in self.notes]
        parts = [f"{'#' * level} {self.title}", self.to_table().to_markdown(), "\n".join(bullets)]
        return "\n\n".join(part for part in parts if part) + "\n"


def _cells(row: Row, metrics: Sequence[str]) -> tuple[str, ...]:
    cells = (str(row.metrics[name]) if name in row.metrics else ABSENT for name in metrics)
    return (row.method, *cells, number(row.seeds or None))


def _row(value: Mapping[str, Any]) -> Row:
    pairs = {str(name): _pair(pair) for name, pair in value["metrics"].items()}
    return Row(str(value["method"]), pairs)


def _pair(value: Mapping[str, Any]) -> Pair:
    return Pair(_number(value["paper"]), tuple(_number(ours) for ours in value["ours"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return number(value)
