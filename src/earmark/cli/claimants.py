"""What each claimant brings to a judge: nobody's broken file or odd name stops the ruling on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import final

from torch import nn

from earmark.cli.networks import check_name, network
from earmark.cli.secrets import task_of
from earmark.errors import BadInput, Tampered
from earmark.evidence import Case, Claim, Draw
from earmark.evidence.slices import Evidence, read_evidence
from earmark.files import weights_digest
from earmark.models import Task

__all__ = ["Brought", "Builder", "Exhibit", "brought", "check_there", "names_of"]


@final
@dataclass(frozen=True)
class Exhibit:
    """The model that a claimant shows as released, with the digest of its file, or why it cannot be built."""

    model: nn.Module | None = None
    digest: str | None = None
    fault: str | None = None


@final
@dataclass(frozen=True)
class Brought:
    """The files of one claimant, and what they hold as far as it can be read."""

    claim_file: Path
    evidence_folder: Path
    claim: Claim | None = None
    evidence: Evidence | None = None
    task: Task | None = None

    def case(
        self,
        name: str,
        committed_before: datetime | None,
        owner: bytes | None,
        shown: Exhibit,
        dated_by: str | None = None,
        draw: Draw | None = None,
        commitments: int = 1,
    ) -> Case:
        """The claimant's case; files that could not be read go in as they are, for the judge to reject."""
        claim, evidence = self.claim or self.claim_file, self.evidence or self.evidence_folder
        released = (shown.model, owner, shown.digest, shown.fault)
        return Case(name, claim, evidence, committed_before, *released, dated_by, draw, commitments)


@final
@dataclass(frozen=True)
class Builder:
    """What builds the networks of a hearing: one network with its arguments, and others by name."""

    name: str
    arguments: Sequence[str] | None

    def accused(self, weights: Path, found: Sequence[Brought]) -> nn.Module:
        """The suspect, built for the first of the claims' tasks that its weights fit, whatever the order of the claims.

        Tasks of few classes come first, so that a stranger's claim of a million makes nobody build such a network.

        Raises:
            BadInput: its weights fit none of the tasks.
        """
        tasks = {(task.classes, task.shape): task for each in found if (task := each.task) is not None}
        faults = []
        for at in sorted(tasks):
            try:
                return network(self.name, weights, self.arguments, tasks[at])
            except BadInput as error:
                faults.append(error)
        raise faults[0]

    def exhibit(self, by: Brought, weights: Path | None, name: str) -> Exhibit:
        """What a claimant shows as released, in the network `name`.

        Raises:
            BadInput: there is no such network; weights that do not fit it are the claimant's fault, and stop nobody.
        """
        check_name(name)
        if weights is None or by.task is None:
            return Exhibit()
        try:
            model = network(name, weights, self.arguments if name == self.name else None, by.task)
            return Exhibit(model, weights_digest(weights))
        except BadInput as error:
            return Exhibit(fault=str(error))


def brought(claims: Sequence[Path], evidence: Sequence[Path]) -> list[Brought]:
    """What the claimants bring, in their order.

    Raises:
        BadInput, Tampered: the files of a single claimant, or of every one, do not hold.
    """
    faults: list[BadInput | Tampered] = []
    found = [_read(*files, faults) for files in zip(claims, evidence, strict=True)]
    if len(faults) == len(found):
        raise faults[0]
    return found


def _read(claim_file: Path, folder: Path, faults: list[BadInput | Tampered]) -> Brought:
    claim = None
    try:
        claim = Claim.read(claim_file)
        opened = read_evidence(folder)
        return Brought(claim_file, folder, claim, opened, task_of(opened.mark, folder))
    except (BadInput, Tampered) as error:
        faults.append(error)
        return Brought(claim_file, folder, claim)


def names_of(found: Sequence[Brought]) -> list[str]:
    """A name of its own for each claimant: the owner's, or, where any two are equal, each with its position.

    Whoever chooses a name chooses what it begins with and not the position that it ends in, so no choice makes two
    names equal. A claimant whose claim cannot be read goes by its file.
    """
    names = [str(each.claim_file) if each.claim is None else each.claim.owner for each in found]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({at})" for at, name in enumerate(names, start=1)]


def check_there(*paths: Path | None) -> None:
    """Raise `BadInput` for a path that leads nowhere: the caller's mistake, and no claimant's."""
    for path in paths:
        if path is not None and not path.exists():
            raise BadInput(f"{path} is not there; check the path")
