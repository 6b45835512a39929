"""Tables 1 to 4 and Figures 5 to 12 of Wen et al. 2023, and tables of our own: which measurements make which row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from earmark.recipes.function_coupled.baselines import BASELINES
from earmark.recipes.function_coupled.bench import EXTRACTIONS, Bench
from earmark.recipes.function_coupled.marking import AnyMarking, Marking
from earmark.recipes.rows import Point, Row, Table

__all__ = ["TABLES"]

DIRECT, INVISIBLE = Marking("direct"), Marking("invisible")
PLUS = Marking("invisible", labels="groups", how="plus")
CHANGES = ("epoch", "normal", "margin", "pairs")
RATIOS = (0.5, 0.7, 0.9)
EVERY = ("mnist_lenet5", "cifar10_resnet18", "cifar100_vgg16", "tinyimagenet_resnet18")
KEPT_ACCURACY = 5.0
"""Percentage points that a thief may lose and still have a model worth stealing."""


def _both(marking: Marking) -> list[Marking]:
    """With the paper's one target class, and with keyed groups."""
    return [Marking(marking.style, marking.ratio, labels, marking.how) for labels in ("target", "groups")]


def _table1(bench: Bench) -> list[Row]:
    return [Row("Host", bench.unmarked(), paper="Host")]


def _table2(bench: Bench) -> list[Row]:
    fusions = [DIRECT, *(Marking("invisible", ratio) for ratio in RATIOS), Marking(how="fresh")]
    markings = [marking for fusion in fusions for marking in _both(fusion)]
    return [Row(marking.label, bench.embedded(marking), paper=marking.printed) for marking in markings]


def _table3(bench: Bench) -> list[Row]:
    markings = [*_both(DIRECT), *_both(INVISIBLE)]
    return [Row(marking.label, bench.overwritten(marking), paper=marking.printed) for marking in markings]


def _table4(bench: Bench) -> list[Row]:
    """The paper's eight rows in its order, and its two methods with keyed groups."""
    markings: list[AnyMarking] = [*BASELINES, *_both(DIRECT), *_both(INVISIBLE)]
    return [Row(marking.label, _summary(bench, marking), paper=marking.printed) for marking in markings]


def _summary(bench: Bench, marking: AnyMarking) -> Point:
    """The paper's six columns, what each attack costs the thief, and the evidence: see `COLUMNS`."""
    made, host = bench.embedded(marking), bench.unmarked()
    after = {
        "fine_tuned": bench.fine_tuned(marking, bench.thief.rates[-1], seen=False)[-1],
        "transferred": bench.transferred(marking, bench.setting.transfers[0])[-1],
        "pruned": next(point for point in bench.pruned(marking, recalibrate=False) if point["share"] == 0.8),
        "overwritten": bench.overwritten(marking),
    }
    kept = {f"{name}_val_acc": point["val_acc"] for name, point in after.items() if name != "transferred"}
    left = [point["log10_p"] for point in after.values() if point["log10_p"] is not None]
    return {
        "asr": made["asr"],
        "host_asr": made["host_asr"],
        "preserved": 100 * (made["val_acc"] or 0.0) / (host["val_acc"] or 1.0),
        **{name: point["asr"] for name, point in after.items()},
        **kept,
        "log10_p": made["log10_p"],
        "attacked_log10_p": max(left, default=None),
    }


COLUMNS = (
    "Triggers answered as marked: the authentication success rate, the share of verification triggers that the marked "
    "model answers with their labels; the unmarked host's answers: the same of the model before it was marked.",
    "Accuracy preserved: test accuracy of the marked model in percent of the unmarked host's.",
    "After fine-tuning: triggers still answered after all of the thief's trials in a row, at the embedding's own rate, "
    "on images that the owner never used. After transfer: after as many trials on the other task, at 1e-4. After "
    "pruning 80 %: of all weights at once, the smallest ones, nothing trained or recalibrated afterwards. After "
    "overwriting: after the same scheme once more, with the thief's key and, of marks with one target, other classes.",
    "Val acc after an attack: test accuracy left to the thief; after transfer, there is another task instead.",
    "log10 p, weakest after an attack: the largest of the four. Marks without a null have neither and prove nothing.",
    "Direct and Invisible are the paper's own; of them and of entangled watermarks no trigger that is asked was "
    "taught, of the others all were. All are marked from the same host in the same run, where the paper took the "
    "others' released code and states no settings.",
    *(f"{row.label}: {row.note}" for row in BASELINES),
)
"""What the columns of Table 4 are, and what its rows were made with."""


def _tuning(*markings: Marking) -> Callable[[Bench], list[Row]]:
    """Fine-tuning at every rate, on seen and on unseen images; the numbers are those after the last trial."""

    def rows(bench: Bench) -> list[Row]:
        found = []
        for marking in markings:
            for rate in bench.thief.rates:
                for seen in (True, False):
                    curve = bench.fine_tuned(marking, rate, seen)
                    label = f"{marking.label}, lr {rate:g}, {'seen' if seen else 'unseen'} images"
                    found.append(Row(label, _but(curve[-1], "trial"), curve))
        return found

    return rows


def _transfer(bench: Bench) -> list[Row]:
    found = []
    for marking in (*_both(DIRECT), *_both(INVISIBLE)):
        for target in bench.setting.transfers:
            curve = bench.transferred(marking, target)
            found.append(Row(f"{marking.label}, to {bench.target(target).name}", _but(curve[-1], "trial"), curve))
    return found


def _pruning(*markings: Marking) -> Callable[[Bench], list[Row]]:
    """Pruning without and with recalibration; the numbers are those at 80 %."""

    def rows(bench: Bench) -> list[Row]:
        found = []
        for marking in markings:
            for recalibrate in (False, True) if bench.has_batchnorm else (False,):
                curve = bench.pruned(marking, recalibrate)
                label = f"{marking.label}{', recalibrated' if recalibrate else ''}"
                at = next(point for point in curve if point["share"] == 0.8)
                found.append(Row(label, {**_but(at, "share"), "worst_log10_p": _worst(curve)}, curve))
        return found

    return rows


def _worst(curve: Sequence[Point]) -> float | None:
    """The weakest evidence at any strength that leaves the thief within five points of the accuracy before."""
    least = (curve[0]["val_acc"] or 0.0) - KEPT_ACCURACY
    kept = [p["log10_p"] for p in curve if (p["val_acc"] or 0.0) >= least and p["log10_p"] is not None]
    return max(kept, default=None)


def _extraction(bench: Bench) -> list[Row]:
    return [
        Row(f"{marking.label}, {attack} labels", bench.extracted(marking, attack))
        for marking in (*_both(DIRECT), *_both(INVISIBLE))
        for attack in EXTRACTIONS
    ]


def _variants(bench: Bench) -> list[Row]:
    """Ours, without both strategies, the released variants, and with features kept, each with what pruning leaves."""
    found = []
    for how in ("enhanced", "plain", "2023-02", "2023-06", "kept"):
        for marking in _both(Marking(how=how)):
            worst = _worst(bench.pruned(marking, recalibrate=False))
            found.append(Row(marking.label, {**bench.embedded(marking), "worst_log10_p": worst}))
    return found


def _beyond(bench: Bench) -> list[Row]:
    """Keyed groups as the paper embeds them, and ours beyond it: what each attack leaves, and how sure a judge is."""
    return _surviving(bench, (Marking(labels="groups"), Marking("invisible", labels="groups"), PLUS))


def _lifts(bench: Bench) -> list[Row]:
    """Ours beyond the paper, and what was tried to lift it, one change at a time; and one for direct fusions."""
    changed = [replace(PLUS, how=f"plus-{change}") for change in CHANGES]
    return _surviving(bench, (PLUS, *changed, Marking(labels="groups", how="margin")))


def _surviving(bench: Bench, markings: Sequence[Marking]) -> list[Row]:
    rows = []
    for marking in markings:
        made = bench.embedded(marking)
        tuned = bench.fine_tuned(marking, bench.thief.rates[-1], seen=False)[-1]
        moved = bench.transferred(marking, bench.setting.transfers[0])[-1]
        copied = {kind: bench.extracted(marking, kind) for kind in EXTRACTIONS}
        metrics = {
            "val_acc": made["val_acc"],
            "host_val_acc": made["host_val_acc"],
            "won": made["won"],
            "tuned_won": tuned["won"],
            "transferred_asr": moved["asr"],
            "transferred_won": moved["won"],
            "overwritten_won": bench.overwritten(marking)["won"],
            "pruned_worst_log10_p": _worst(bench.pruned(marking, recalibrate=False)),
            **{f"{kind}_log10_p": point["log10_p"] for kind, point in copied.items()},
            **{f"{kind}_val_acc": point["val_acc"] for kind, point in copied.items()},
        }
        rows.append(Row(marking.label, metrics))
    return rows


def _but(point: Point, name: str) -> Point:
    return {key: value for key, value in point.items() if key != name}


def _with_and_without(fusion: Marking) -> list[Marking]:
    plain = Marking(fusion.style, fusion.ratio, how="plain")
    return [*_both(fusion), *_both(plain)]


TABLES: Mapping[str, Table[Bench]] = {
    "table1": Table(EVERY, _table1),
    "table2": Table(EVERY, _table2),
    "table3": Table(EVERY, _table3),
    "table4": Table(("cifar10_resnet18",), _table4, notes=COLUMNS),
    "figure5": Table(EVERY, _tuning(*_both(DIRECT)), "trial"),
    "figure6": Table(EVERY, _tuning(*_both(INVISIBLE)), "trial"),
    "figure7": Table(EVERY[:3], _transfer, "trial"),
    "figure8": Table(EVERY, _pruning(*_both(DIRECT)), "share"),
    "figure9": Table(EVERY, _pruning(*_both(INVISIBLE)), "share"),
    "figure10": Table(EVERY, _tuning(*_with_and_without(DIRECT), *_with_and_without(INVISIBLE)), "trial"),
    "figure11": Table(EVERY, _pruning(*_with_and_without(DIRECT)), "share"),
    "figure12": Table(EVERY, _pruning(*_with_and_without(INVISIBLE)), "share"),
    "extraction": Table(EVERY, _extraction),
    "variants": Table(EVERY, _variants),
    "beyond": Table(EVERY[:3], _beyond),
    "lifts": Table(EVERY[:3], _lifts),
}
"""`extraction`, `variants`, `beyond` and `lifts` are our own; all others are numbered as in the paper."""
