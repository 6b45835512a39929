"""Names and settings become schemes and attacks; what is left of a plan, and how long it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benched import SCHEMES
from tiny import TinyNet, seeded

from earmark.attacks import ATTACKS, EVASIONS, FORGERIES, Overwrite
from earmark.bench import (
    PRESETS,
    Grid,
    Plan,
    Task,
    attack_names,
    bare_attacks,
    bare_schemes,
    named_attack,
    named_scheme,
    read_preset,
    swept,
)
from earmark.bench.naming import described, identity
from earmark.bench.plan import Progress
from earmark.bench.processes import threads_each
from earmark.bench.scheme import UNRELATED
from earmark.bench.sources import letters
from earmark.embed import METHODS
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Abstract, Noise, PassportMint, TriggerMint
from earmark.models import built
from earmark.schemes import SCHEMES as NAMED
from earmark.schemes import deepipr
from earmark.training import HOST

# ---------------------------------------------------------------------------------------------------------------- names


def test_every_attack_has_one_name_and_one_meaning() -> None:
    assert {*ATTACKS, *EVASIONS, *FORGERIES} <= set(attack_names())
    for name in bare_attacks():
        assert named_attack(name).family == attack_names()[name]


@pytest.mark.parametrize("name", bare_schemes())
def test_a_scheme_by_name_is_the_scheme(name: str) -> None:
    assert described(named_scheme(name), whole=True) == described(NAMED[name](), whole=True)


def test_settings_find_the_mint_the_embedding_and_its_training() -> None:
    scheme = named_scheme("deep-fidelity", count=60, lr=0.5, enough=0.9, milestones=[2, 4])
    assert (scheme.mint.count, scheme.embed.settings.lr, scheme.embed.enough) == (60, 0.5, 0.9)  # type: ignore[attr-defined]
    assert scheme.embed.settings.milestones == (2, 4)  # type: ignore[attr-defined]
    assert scheme.invert.pose_as == scheme.mint  # type: ignore[attr-defined]
    other = named_scheme("deep-fidelity", mint="abstract", method="fixll+spl", gamma=7.0)
    assert isinstance(other.mint, Abstract)
    assert described(other.embed) == described(METHODS["fixll+spl"](gamma=7.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: named_scheme("deep-fidelty"), "unknown scheme 'deep-fidelty': did you mean 'deep-fidelity'"),
        (lambda: named_scheme("deep-fidelity", cuont=3), "unknown setting of deep-fidelity 'cuont': did you mean 'cou"),
        (lambda: named_scheme("deep-fidelity", method="fixl"), "unknown embedding method 'fixl': did you mean 'fixll'"),
        (lambda: named_scheme("deep-fidelity", mint="nose"), "unknown mint 'nose': did you mean 'noise'"),
        (lambda: named_attack("prune-globe"), "unknown attack 'prune-globe': did you mean 'prune-global'"),
        (lambda: named_attack("prune-global", shar=1), "unknown setting of prune-global 'shar': did you mean 'share'"),
        (lambda: named_attack("prune-global", share=2.0), "share: expected the share of weights to prune"),
        (lambda: named_attack("transfer"), "transfer needs data; set transfer.data"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(make: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()


def test_an_attack_gets_from_the_scheme_what_only_the_scheme_has() -> None:
    scheme, key = SCHEMES["triggers"], MarkKey(bytes(32))
    mark = Noise(count=4).make(key, (1, 8, 8), 3)
    thief = named_attack("overwrite").against(scheme, mark, key)
    assert isinstance(thief, Overwrite)
    assert (thief.mint, thief.embed, thief.key) == (scheme.mint, scheme.embed, key)
    posed = named_attack("adversarial").against(scheme, mark, key)
    assert posed.pose_as == scheme.mint
    assert isinstance(scheme.mint, TriggerMint)
    layered = deepipr(PassportMint(layers=2))
    assert named_attack("solved").against(layered, mark, key).layers == 2
    assert named_attack("fine-tune-ftal").against(layered, mark, key).layers == "all"
    assert named_attack("solved").unfit(mark) is not None
    assert named_attack("jpeg").unfit(mark) is named_attack("half").unfit(mark) is None


def test_strengths_stand_in_the_labels() -> None:
    found = swept("prune-global", "share", (0.2, 0.9), exclude_head=True)
    assert [attack.settings for attack in found.values()] == [
        {"exclude_head": True, "share": 0.2},
        {"exclude_head": True, "share": 0.9},
    ]


def test_what_is_told_of_settings_leaves_secrets_out_and_differs_where_they_differ() -> None:
    key = MarkKey(bytes(range(32)))
    told = described(Overwrite(Noise(), METHODS["ftal"](), key), whole=True)
    assert key.secret.hex() not in str(told)
    assert "secret" not in str(told)
    assert described(Noise(count=7)) == {"is": "Noise", "count": 7}
    assert identity(Noise()) == identity(Noise(count=100)) != identity(Noise(count=101))
    net = seeded(TinyNet)
    assert identity(net) == identity(seeded(TinyNet)) != identity(seeded(TinyNet, seed=1))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_speaks_of_what_there_is(name: str) -> None:
    preset = PRESETS[name]
    for scheme, settings in preset.schemes.items():
        if scheme in NAMED:
            named_scheme(scheme, others=letters() if scheme == UNRELATED else None, **settings)
    for attack, settings in preset.attacks.items():
        if attack in attack_names():
            named_attack(attack, **settings)
    for key, values in preset.sweeps.items():
        attack, _, setting = key.partition(".")
        swept(attack, setting, values)
    assert preset.host.batchnorm == HOST.batchnorm


def test_the_digits_need_nothing_but_the_library() -> None:
    data = read_preset("digits")
    net = built(PRESETS["digits"].build(data), torch.Generator())
    assert net(data.test.pixels[:2].float() / 255).shape == (2, 10)
    with pytest.raises(BadInput, match="real images are needed"):
        read_preset("mnist")


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARMARK_DATA", raising=False)


# ---------------------------------------------------------------------------------------------------------------- plans


CELLS = [Task(seed, scheme, attack) for seed in (0, 1) for scheme in "ab" for attack in ("none", "x", "y")]


def test_one_worker_does_everything_once_and_each_stage_before_what_needs_it() -> None:
    plan, done, last = Plan(CELLS), [], None
    while plan:
        last = plan.take(last)
        assert last is not None
        assert last.needs is None or last.needs in done
        done.append(last)
        plan.finish(last, 1.0)
    assert len(done) == len(set(done)) == len(CELLS) + 4 + 2
    groups = [(task.seed, task.scheme) for task in done if task.attack]
    assert groups == sorted(groups), "a marked model is done with before the next one is made"


def test_two_workers_begin_with_different_seeds_and_help_each_other_at_the_end() -> None:
    plan = Plan(CELLS)
    first, second = plan.take(), plan.take()
    assert (first, second) == (Task(0), Task(1))
    assert plan.take() is None, "everything else waits for a host"
    plan.finish(Task(0), 1.0)
    plan.finish(Task(1), 1.0)
    assert plan.take(first) == Task(0, "a")
    plan.finish(Task(0, "a"), 1.0)
    mine = plan.take(Task(0, "a"))
    other = plan.take(Task(1))
    assert (mine, other) == (Task(0, "a", "none"), Task(0, "b")), "nobody works on b yet"


def test_a_stage_that_cannot_be_made_takes_its_cells_with_it() -> None:
    plan = Plan(CELLS)
    assert plan.take() == Task(0)
    assert plan.drop(Task(0)) == CELLS[:6]
    assert plan.take() == Task(1)
    plan.finish(Task(1), 1.0)
    assert plan.take(Task(1)) == Task(1, "a")
    assert plan.drop(Task(1, "a")) == CELLS[6:9]


def test_the_time_left_is_what_the_same_work_took() -> None:
    plan = Plan([Task(0, "a", name) for name in ("none", "x", "y")] + [Task(0, "b", name) for name in ("x", "y")])
    assert plan.left(1) is None
    for task, seconds in ((Task(0), 10.0), (Task(0, "a"), 6.0), (Task(0, "a", "none"), 1.0), (Task(0, "a", "x"), 3.0)):
        assert plan.take(Task(0, "a")) == task
        plan.finish(task, seconds)
    usual = (1.0 + 3.0) / 2
    assert plan.left(1) == usual + 6.0 + 3.0 + usual  # y under a, then b: its embedding, x, and y again
    assert plan.left(2) == plan.left(1) / 2  # type: ignore[operator]


def test_progress_is_told_in_one_line() -> None:
    assert str(Progress(4, 4, 0, 0.0, "last")) == "4 of 4 cells; last"


def test_workers_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert [threads_each(workers) for workers in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_each(4) == 3


def test_a_grid_goes_to_another_process_with_its_images() -> None:
    whole = read_preset("digits")
    grid = Grid(whole, TinyNet, SCHEMES, {})
    sent = grid.shipped()
    assert sent.images_digest == grid.images_digest
    assert not isinstance(sent.data, type(whole))
