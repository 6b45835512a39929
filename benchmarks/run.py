"""How fast the library is, as ratios to a floor measured in the same run; writes a table to benchmarks/results/.

python benchmarks/run.py [--rounds 60] [--device cpu|cuda|all] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import passports as passport_cases
import torch
from timing import Times, interleaved

from earmark.embed import ftal
from earmark.files import write_atomic, write_json
from earmark.reports import Table
from earmark.training import Masking

HERE = Path(__file__).parent
STEP_TARGETS = {"FTAL": (1.05, None), "FixLL": (1.05, None), "FixLL+PFL": (1.10, 1.5), "FixLL+SPL": (1.10, 1.5)}
"""Of a step over a plain one, by method: without augmentation, and with it."""


@dataclass(frozen=True)
class Line:
    """One line of the result: what was measured, over which floor, and the target it has to keep."""

    what: str
    floor: str
    value: float
    target: float | None
    unit: str = "x"
    detail: str = ""

    @property
    def kept(self) -> bool | None:
        """Whether the target is kept; None where there is none."""
        return None if self.target is None else self.value <= self.target

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        target = "" if self.target is None else f"≤ {self.target:g} {self.unit}"
        kept = {True: "yes", False: "NO", None: ""}[self.kept]
        return (self.what, self.floor, f"{self.value:.3f} {self.unit}", target, kept, self.detail)


def over(what: str, times: Mapping[str, Times], name: str, floor: str, target: float | None) -> Line:
    """The ratio of one case to its floor, as a line."""
    own, least = times[name].to_dict(), times[floor].to_dict()
    shown = [f"{t['median_ms']:.2f} [{t['min_ms']:.2f}, {t['max_ms']:.2f}]" for t in (own, least)]
    return Line(what, floor, times[name].over(times[floor]), target, detail=" over ".join(shown) + " ms")


def steps(device: torch.device, rounds: int) -> list[Line]:
    """(a) An embedding step over a plain forward-backward-update step on as many images."""
    plain, ordinary = "plain step", "plain step, BN in train mode"
    made: dict[str, cases.Timed] = {plain: cases.plain_step(device)}
    made[ordinary] = cases.plain_step(device, batchnorm="train")
    for name, method in cases.METHODS.items():
        made[name] = cases.EmbeddingStep(method(), device)
        made[f"{name}, augmented"] = cases.EmbeddingStep(method(), device, cached=False)
    times = interleaved(made, rounds, device)
    lines = []
    for name in cases.METHODS:
        cached, augmented = STEP_TARGETS.get(name, (None, None))
        lines.append(over(f"step of {name}", times, name, plain, cached))
        lines.append(over(f"step of {name}, with augmentation", times, f"{name}, augmented", plain, augmented))
    return [*lines, over("plain step, BN in train mode", times, ordinary, plain, None)]


def layouts(device: torch.device, rounds: int) -> list[Line]:
    """(b) channels_last over the default layout."""
    made: dict[str, cases.Timed] = {
        "plain, channels_last": cases.plain_step(device),
        "plain, default layout": cases.plain_step(device, channels_last=False),
        "FixLL+PFL, channels_last": cases.EmbeddingStep(cases.METHODS["FixLL+PFL"](), device),
        "FixLL+PFL, default layout": cases.EmbeddingStep(cases.METHODS["FixLL+PFL"](), device, channels_last=False),
    }
    times = interleaved(made, rounds, device)
    names = [name.removesuffix(", channels_last") for name in made if name.endswith("channels_last")]
    return [over(f"{n}, channels_last", times, f"{n}, channels_last", f"{n}, default layout", None) for n in names]


def verifying(device: torch.device, rounds: int) -> list[Line]:
    """(c) Verification of 100 triggers over one forward pass of 100 images."""
    floor = "one forward of 100 images"
    made: dict[str, cases.Timed] = {"verify": cases.verification(device), floor: cases.forward_of_triggers(device)}
    return [over("verification of 100 triggers", interleaved(made, rounds, device), "verify", floor, 1.2)]


def minting(rounds: int) -> list[Line]:
    """(d) Seconds to mint 100 noise triggers."""
    made = {f"{size} x {size} x {channels}": cases.mint(channels, size) for channels, size in ((1, 28), (3, 32))}
    times = interleaved(made, max(3, rounds // 6), torch.device("cpu"), warmup=1)
    return [Line(f"minting 100 noise triggers, {n}", "", t.median, 1.0, "s") for n, t in times.items()]


def masking(device: torch.device, rounds: int) -> list[Line]:
    """(f) A masked step over a plain one on as many images, the mask drawn anew at every step or once an epoch.

    The second line of a masked step has the same step without masks as its floor: what the masks alone cost. LeNet-5
    has its target at the batch that its recipe trains with; at the smaller one a step takes a few milliseconds, and
    the line says what is left of them for anything but arithmetic.
    """
    usual, own = (cases.BATCH, cases.TRIGGERS_PER_BATCH), (cases.LENET_BATCH, cases.LENET_TRIGGERS)
    lines = []
    for net_name, net, batch, target in (
        ("thin ResNet-18", cases.host, usual, 1.10),
        ("LeNet-5", cases.lenet, own, 1.10),
        ("LeNet-5", cases.lenet, usual, None),
    ):
        what = f"{net_name}, {sum(batch)} images"
        floor, unmasked = f"plain step, {what}", f"unmasked step, {what}"
        made: dict[str, cases.Timed] = {floor: cases.plain_step(device, net=net, together=sum(batch))}
        made[unmasked] = cases.EmbeddingStep(ftal(), device, net=net, batch=batch)
        for drop, every, when in ((0.01, 1, "every step"), (0.2, 1, "every step"), (0.2, None, "every epoch")):
            method = ftal().but(masking=Masking(drop, every))
            name = f"masked step, {what}, p = {drop}, {when}"
            made[name] = cases.EmbeddingStep(method, device, net=net, batch=batch)
        times = interleaved(made, rounds, device)
        lines.append(over(unmasked, times, unmasked, floor, None))
        for name in list(made)[2:]:
            lines += [over(name, times, name, floor, target), over(name, times, name, unmasked, target)]
    return lines


def drawing(rounds: int) -> list[Line]:
    """(g) Milliseconds to draw a mask for 11.2 million weights, and seconds for 1,000 fusions of 32 x 32 x 3."""
    masks = {f"mask for 11.2 M weights, p = {drop}": cases.draw_masks(drop) for drop in (0.01, 0.2)}
    fused = {f"1,000 fusions, {style}": cases.fuse(style) for style in ("direct", "invisible")}
    minted = {f"minting 1,000 fused triggers, {style}": cases.mint_fused(style) for style in ("direct", "invisible")}
    times = interleaved({**masks, **fused, **minted}, max(3, rounds // 6), torch.device("cpu"), warmup=1)
    targets = zip(masks, (10.0, 40.0), strict=True)
    lines = [Line(name, "", 1000 * times[name].median, target, "ms") for name, target in targets]
    lines += [Line(name, "", times[name].median, 0.1, "s") for name in fused]
    return lines + [Line(name, "", times[name].median, None, "s") for name in minted]


def stamps(rounds: int) -> list[Line]:
    """(h) Penetrative stamps at K = 8, J = 30, over loops; seconds for 4,000 iterations of two stamps.

    An iteration's time is a share of a search's, in which the shadows' weights are copied and packed once: of 40, where
    a search has 4,000.
    """
    bank, loop, one, two = cases.shadows(), "the same as a plain loop", "one stamp", "stamp iterations, two stamps"
    alone, both = "one after the other", "8 shadows trained together"
    searching: dict[str, cases.Timed] = {loop: cases.stamp_loop(bank)}
    searching |= {name: cases.stamp_iteration(count, bank) for name, count in ((one, 1), (two, 2))}
    training = {both: cases.shadow_training(together=True), alone: cases.shadow_training(together=False)}
    few, device = max(3, rounds // 6), torch.device("cpu")
    searched = interleaved(searching, few, device, warmup=1)
    times = {name: all_.each(cases.LOOPED if name == loop else cases.ITERATIONS) for name, all_ in searched.items()}
    times |= interleaved(training, few, device, warmup=1)
    return [
        over(f"stamp iterations, {one}", times, one, loop, 1 / 30),
        over(two, times, two, one, 1.5),
        Line("4,000 iterations of two stamps", "", 4_000 * times[two].median, 90.0, "s"),
        over(both, times, both, alone, 0.5),
    ]


def passports(device: torch.device, rounds: int) -> list[Line]:
    """(i) A step that trains passports over a plain one with the same norm; what they cost an answer; gamma itself."""
    few, lines = max(3, rounds // 6), []
    for net, targets in passport_cases.TARGETS.items():
        made: dict[str, cases.Timed] = {}
        for norm in ("bn", "gn"):
            made[f"plain step, {net}, {norm}"] = passport_cases.plain_step(net, norm, device)
        for scheme, norm in (("V1", "bn"), ("V2", "gn"), ("V3", "gn"), ("V2", "bn")):
            name = f"step of {scheme}, {net}, {norm}"
            made[name] = passport_cases.protected_step(net, norm, scheme, device)
        times = interleaved(made, few, device, warmup=1)
        for name in made:
            if not name.startswith("plain"):
                scheme, norm = name.split()[2].strip(","), name.split()[-1]
                lines.append(over(name, times, name, f"plain step, {net}, {norm}", targets[scheme]))
        asked: dict[str, cases.Timed] = {
            f"one image through {net}{', released as V1' if own else ''}": passport_cases.answer(net, own, device)
            for own in (True, False)
        }
        name, floor = asked
        lines.append(over(name, interleaved(asked, rounds, device), name, floor, 1.05))
    gammas = {"gamma of 20 passports": passport_cases.gamma(), "by convolution": passport_cases.gamma_by_convolution()}
    times = interleaved(gammas, rounds, torch.device("cpu"))
    return [*lines, over("gamma of 20 passports", times, "gamma of 20 passports", "by convolution", 1 / 50)]


def memory(device: torch.device) -> list[Line]:
    """(e) Peak memory of an embedding run over a plain run, each in a process of its own."""
    peaks = {kind: _child(kind, device) for kind in ("plain", *cases.METHODS)}
    lines = []
    for where, peak in peaks["plain"].items():
        for name in cases.METHODS:
            if peak is not None:
                own = peaks[name][where]
                detail = f"{own / 2**20:.0f} over {peak / 2**20:.0f} MiB"
                lines.append(Line(f"{where} memory of {name}", "plain run", own / peak, 1.3, detail=detail))
    return lines


def _child(kind: str, device: torch.device) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "memory.py"), kind, str(device)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    peaks: dict[str, Any] = json.loads(told.splitlines()[-1])
    return peaks


def hardware(device: torch.device) -> str:
    """The device and what it stands in, in words."""
    cpu = f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
    name = f"{torch.cuda.get_device_name(device)} in {cpu}" if device.type == "cuda" else cpu
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"


def slug(device: torch.device) -> str:
    """A file name for the hardware and the day."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}-{os.cpu_count()}cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + time.strftime("-%Y-%m-%d")


def report(lines: Sequence[Line], device: torch.device, rounds: int) -> str:
    """The results as Markdown."""
    columns = ("What", "Floor", "Measured", "Target", "Kept", "Median [min, max]")
    body = Table(columns, tuple(line.cells for line in lines)).to_markdown()
    about = (
        f"{hardware(device)}; {time.strftime('%Y-%m-%d')}; median over {rounds} interleaved rounds of the ratio within "
        f"a round. Steps: thin ResNet-18, d = 2, 28 x 28, {cases.BATCH} images, {cases.TRIGGERS_PER_BATCH} triggers, "
        "batch norm frozen, fused Adam, channels_last; the plain step has the same 36 images ready on the device."
    )
    return f"# Speed\n\n{about}\n\n{body}\n"


def run(device: torch.device, rounds: int, out: Path) -> bool:
    """Measure everything on one device, write and show it, and say whether every target is kept."""
    lines = [*steps(device, rounds), *layouts(device, rounds), *verifying(device, rounds)]
    lines += [*minting(rounds), *masking(device, rounds), *drawing(rounds), *stamps(rounds), *passports(device, rounds)]
    lines += memory(device)
    text, stem = report(lines, device, rounds), out / slug(device)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(stem.with_name(f"{stem.name}.md"), text.encode())
    facts = [{**vars(line), "kept": line.kept} for line in lines]
    write_json(stem.with_name(f"{stem.name}.json"), {"hardware": hardware(device), "rounds": rounds, "lines": facts})
    print(text)
    return all(line.kept is not False for line in lines)


def main() -> int:
    """Parse the command line; exit status 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="measured rounds of each comparison")
    parser.add_argument("--device", default="all", help="cpu, cuda, or all that there are")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the results")
    told = parser.parse_args()
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices = [torch.device(name) for name in (there if told.device == "all" else [told.device])]
    kept = [run(device, told.rounds, told.out) for device in devices]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
