"""Target and measured rows -> whether to prune, with sentences that name the rows they rest on.

Nothing is interpolated and nothing is guessed: a number is a row's, a mean over seeds of one thing,
or the target's own. What was not measured is said to be, with what would measure it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pruning.advice import figures
from pruning.advice.figures import Asked, Fact, Part, Sentence, sentence
from pruning.advice.rows import FAMILIES, Cell, Measured, cells
from pruning.advice.target import ONNX, SKIPS, TORCH, Target
from pruning.metrics import Paired, Spread
from pruning.outcomes import paired
from pruning.sweeps import comparison

ALREADY, INT8, HALF, SMALLER, PRUNE, BOTH, UNREACHED, UNKNOWN = (
    "already",
    "int8",
    "half",
    "smaller",
    "prune",
    "pruned_int8",
    "unreached",
    "unknown",
)
HELPS = {PRUNE: True, BOTH: True, UNKNOWN: None}
"""Verdict -> whether pruning helps; of all others it does not."""

WITHOUT_TRAINING = ("int8", "half")
TRAINED = ("pruned", "smaller", "pruned_int8")
WAYS = ("pruned", "int8", "half", "smaller", "pruned_int8")
"""Every way to make a network small, in the order that sentences have them."""


@dataclass(frozen=True)
class Candidate:
    """A cell beside the target. cost: in the target's unit, drop: of accuracy below dense, a share;
    None: not measured. untrained: judged as it was before fine-tuning, since there is none.
    obstacle: why it cannot be had at all, "" where it can.
    """

    cell: Cell
    cost: float | None
    drop: float | None
    change: Spread | None
    untrained: bool = False
    obstacle: str = ""
    fits: bool = False
    kept: bool = False

    @property
    def family(self) -> str:
        return self.cell.first.family

    @property
    def reaches(self) -> bool:
        return self.fits and self.kept and not self.obstacle

    @property
    def accuracy_column(self) -> str:
        return "accuracy_pruned" if self.untrained else "accuracy"

    @property
    def accuracy(self) -> float | None:
        return self.cell.mean(self.accuracy_column)


@dataclass(frozen=True)
class Click:
    """What measures something that was not measured. what: "alternatives", or "run" with a
    recipe.
    """

    what: str
    recipe: dict[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Advice:
    """helps: whether pruning does, None where it is not known; verdict: why; sentences: the answer
    first; best: what to take, None where nothing reaches the target; candidates: all that was
    looked at; clicks: what would measure the rest.
    """

    target: Target
    verdict: str
    sentences: tuple[Sentence, ...]
    candidates: tuple[Candidate, ...]
    best: Candidate | None = None
    clicks: tuple[Click, ...] = ()

    @property
    def helps(self) -> bool | None:
        return HELPS.get(self.verdict, False)

    @property
    def answer(self) -> Sentence:
        return self.sentences[0]


def advise(target: Target, rows: Iterable[Measured]) -> Advice:
    """The answer to a target from what was measured of its model."""
    candidates = [_candidate(target, cell) for cell in cells(_of_accuracy(rows))]
    if not any(each.family == "dense" for each in candidates):
        return _unknown(target, candidates)
    verdict, best = _decide(candidates)
    sentences = [*_answer(target, verdict, best, candidates)]
    sentences += _evidence(target, best)
    sentences += _beside(target, best, candidates)
    sentences += _zeros(target, candidates)
    sentences += _data(target, candidates)
    if target.limit == "energy":
        sentences.append(sentence("Energy is modelled from multiplies and adds alone."))
    missing, clicks = _not_measured(target, candidates)
    return Advice(target, verdict, (*sentences, *missing), tuple(candidates), best, tuple(clicks))


def _of_accuracy(rows: Iterable[Measured]) -> list[Measured]:
    """Other metrics have no points of accuracy."""
    return [row for row in rows if row.metric in (None, "accuracy")]


# ---------------------------------------------------------------- each thing beside the target


def _candidate(target: Target, cell: Cell) -> Candidate:
    untrained = cell.first.family == "pruned" and not _can_train(target, cell)
    column = "accuracy_pruned" if untrained else "accuracy"
    accuracy, dense = cell.mean(column), cell.mean("dense")
    drop = None if accuracy is None or dense is None else dense - accuracy
    cost = figures.cost_of(target, cell)
    change = None if untrained else cell.change
    return Candidate(
        cell=cell,
        cost=cost,
        drop=drop,
        change=change,
        untrained=untrained,
        obstacle=_obstacle(target, cell),
        fits=cost is not None and cost <= target.most,
        # A rounding error is no point.
        kept=drop is not None and drop <= target.within / 100 + 1e-9,
    )


def _can_train(target: Target, cell: Cell) -> bool:
    """Whether there is as much to train on as these rows had."""
    if not cell.first.epochs:
        return True
    wanted = cell.first.train_examples
    enough = target.examples is None or wanted is None or target.examples >= wanted
    return target.trains and enough


def _obstacle(target: Target, cell: Cell) -> str:
    """Why a thing cannot be had here at all."""
    first = cell.first
    if first.family in ("smaller", "pruned_int8", "dense_longer") and not _can_train(target, cell):
        return "it was trained on more than there is here"
    if target.runtime != ONNX and first.runtime == "onnx":
        return "it is a program of ONNX Runtime"
    if target.runtime == ONNX and first.name in COMPUTED_IN_TORCH:
        return "it is computed in PyTorch"
    wanted = first.calibration
    if wanted and target.examples is not None and target.examples < wanted:
        return "its ranges were taken from more examples than there are here"
    return ""


COMPUTED_IN_TORCH = ("float16 in PyTorch", "bfloat16 in PyTorch")


# ---------------------------------------------------------------- the decision


def _decide(candidates: Sequence[Candidate]) -> tuple[str, Candidate | None]:
    reaching = [each for each in candidates if each.reaches]
    dense = _best(reaching, "dense")
    if dense is not None:
        return ALREADY, dense
    # What needs no training comes first: who has it, need not prune.
    for family in WITHOUT_TRAINING:
        alone = _best(reaching, family)
        if alone is not None:
            return family, alone
    pruned, smaller = _best(reaching, "pruned"), _best(reaching, "smaller")
    if smaller is not None and (pruned is None or not clearly_better(pruned, smaller)):
        return SMALLER, smaller
    if pruned is not None:
        return PRUNE, pruned
    both = _best(reaching, "pruned_int8")
    return (BOTH, both) if both is not None else (UNREACHED, None)


def _best(candidates: Iterable[Candidate], family: str) -> Candidate | None:
    """The most accurate by its mean; of equal ones the cheapest."""
    own = [each for each in candidates if each.family == family and each.accuracy is not None]
    return min(own, key=_order, default=None)


def _order(candidate: Candidate) -> tuple[float, float]:
    return -(candidate.accuracy or 0.0), candidate.cost or 0.0


def clearly_better(first: Candidate, second: Candidate) -> bool:
    """Whether neither seeds nor test examples explain that the first is more accurate.

    `comparison.difference` decides, as for sweeps: with one seed nothing is clearly better.
    """
    a, b = _of_sweep(first.cell), _of_sweep(second.cell)
    difference = comparison.difference(a, b, comparison.noise((a, b)), _paired)
    return difference.clear and difference.value > 0


def _of_sweep(cell: Cell) -> comparison.Cell:
    """The same, as sweeps compare them."""
    rows = [{**asdict(row), "higher_is_better": True} for row in cell.rows]
    return comparison.Cell(cell.first.name, cell.first.level or 0.0, "", tuple(rows))


def _paired(first: comparison.Row, second: comparison.Row) -> Paired | None:
    a, b, examples = first["outcomes"], second["outcomes"], first["examples"]
    return paired(a, b, examples) if a and b and examples == second["examples"] else None


# ---------------------------------------------------------------- sentences


def _answer(
    target: Target, verdict: str, best: Candidate | None, candidates: Sequence[Candidate]
) -> list[Sentence]:
    """One sentence that is the answer."""
    limit = figures.limit(target)
    within = figures.within(target)
    if best is None:
        return [_nothing(target, candidates)]
    name = _named(best)
    cost, accuracy = figures.cost(target, best.cell), _accuracy(best)
    if verdict == ALREADY:
        template = "Don't prune: {}, {}, is within {} as it is, at {} right."
        return [sentence(template, name, cost, limit, accuracy)]
    return [sentence(ANSWERS[verdict], name, cost, limit, accuracy, within)]


_ALONE = (
    "Don't prune: {} alone comes to {} (at most {}) at {} right, within {} of dense, and needs no "
    "training."
)
ANSWERS = {
    INT8: _ALONE,
    HALF: _ALONE,
    SMALLER: (
        "Don't prune: {} comes to {} (at most {}) at {} right, within {} of dense, and no pruned "
        "network that fits is clearly better."
    ),
    PRUNE: "Prune: {} comes to {} (at most {}) at {} right, within {} of dense.",
    BOTH: (
        "Prune and quantise: {} comes to {} (at most {}) at {} right, within {} of dense; neither "
        "alone reaches that."
    ),
}
"""Verdict -> the answer: what, its cost, the limit, its accuracy, and what is tolerated."""


def _nothing(target: Target, candidates: Sequence[Candidate]) -> Sentence:
    """The cheapest of what is accurate enough comes nearest."""
    limit, within = figures.limit(target), figures.within(target)
    small = [e for e in candidates if e.family not in ("dense", "dense_longer")]
    accurate = [e for e in small if e.kept and not e.obstacle and e.cost is not None]
    if accurate:
        near = min(accurate, key=lambda each: each.cost or 0.0)
        return sentence(
            "Don't: nothing that was measured is at most {} within {} of dense; the least so near "
            "is {} with {}, at {} right.",
            limit,
            within,
            _named(near),
            figures.cost(target, near.cell),
            _accuracy(near),
        )
    return sentence(
        "Don't: nothing that was measured is at most {} within {} of dense.", limit, within
    )


def _named(candidate: Candidate) -> tuple[Part, ...]:
    """`95 % of weights by lamp`."""
    first = candidate.cell.first
    if first.level is None or first.family in ("dense", "dense_longer"):
        return (figures.Name(first.name, candidate.cell.ids),)
    level = figures.fact(candidate.cell, "level")
    if first.family == "smaller":
        name = figures.Name("a smaller dense network (as wide as with ", candidate.cell.ids)
        return (name, level, " of the channels pruned)")
    return (level, " of ", figures.Name(first.name, candidate.cell.ids))


def _accuracy(candidate: Candidate) -> Fact:
    return figures.fact(candidate.cell, candidate.accuracy_column)


def _evidence(target: Target, best: Candidate | None) -> list[Sentence]:
    """How sure it is, and what it takes."""
    if best is None:
        return []
    made = []
    cell = best.cell
    if best.change is not None and best.family != "dense":
        wide = best.change.low < -target.within / 100
        end: tuple[Part, ...] = ()
        if wide:
            limit = figures.within(target)
            end = (", so that these examples do not rule out a drop of more than ", limit)
        made.append(
            sentence(
                "That is {} points from dense ({} to {} by the {} test examples that both "
                "answered; {}){}.",
                figures.fact(cell, "change"),
                figures.fact(cell, "change_low"),
                figures.fact(cell, "change_high"),
                figures.fact(cell, "examples"),
                _seeds(cell),
                end,
            )
        )
    if best.untrained:
        made.append(sentence("That is right after pruning, without fine-tuning.", rows=cell.ids))
    elif best.family in TRAINED and cell.mean("epochs"):
        made.append(_training(best))
    if best.family == "pruned" and target.limit == "bytes" and _is_sparse(cell):
        made.append(
            sentence(
                "Those bytes are a sparse file, with the zeros not written: whoever loads it "
                "needs a reader, and in memory it is as large as dense.",
                rows=cell.ids,
            )
        )
    return made


def _is_sparse(cell: Cell) -> bool:
    first = cell.first
    return first.macs is not None and first.macs_kept is not None and first.macs_kept < first.macs


def _seeds(cell: Cell) -> tuple[Part, ...]:
    if len(cell.rows) == 1:
        return ("one seed",)
    return ("mean of ", figures.fact(cell, "seeds"), " seeds")


def _training(best: Candidate) -> Sentence:
    cell = best.cell
    epochs = figures.fact(cell, "epochs")
    many = figures.fact(cell, "train_examples")
    if cell.first.train_examples is None:
        return sentence("It takes {} epochs of training.", epochs)
    what = "from random weights" if best.family == "smaller" else "of fine-tuning"
    return sentence(f"It takes {{}} epochs {what} on {{}} examples.", epochs, many)


def _beside(
    target: Target, best: Candidate | None, candidates: Sequence[Candidate]
) -> list[Sentence]:
    """Every other way, in one sentence each: what came nearest of it."""
    made = []
    for family in WAYS:
        if best is not None and best.family == family:
            continue
        own = [e for e in candidates if e.family == family and e.cost is not None]
        own = [e for e in own if not e.obstacle and e.accuracy is not None]
        if not own:
            continue
        near = nearest(own)
        way = _capitalized(FAMILIES[family])
        made.append(
            sentence(
                f"{way} {_outcome(near, best)}: {{}} comes to {{}} at {{}} right.",
                _named(near),
                figures.cost(target, near.cell),
                _accuracy(near),
            )
        )
    return made


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def nearest(candidates: Sequence[Candidate]) -> Candidate:
    """One that reaches the target; else the most accurate that fits; else the cheapest."""
    for wanted in ("reaches", "fits"):
        own = [each for each in candidates if getattr(each, wanted)]
        if own:
            return min(own, key=_order)
    return min(candidates, key=lambda each: each.cost or 0.0)


def _outcome(candidate: Candidate, best: Candidate | None) -> str:
    if candidate.reaches:
        worse = best is not None and clearly_better(best, candidate)
        return "reaches it too, clearly less accurate" if worse else "reaches it too"
    if candidate.fits:
        return "loses too much where it fits"
    return "does not come below the limit"


def _zeros(target: Target, candidates: Sequence[Candidate]) -> list[Sentence]:
    """Where single weights are pruned and a runtime multiplies zeros all the same."""
    if target.limit not in ("ms", "macs", "energy") or target.runtime == SKIPS:
        return []
    own = [e for e in candidates if e.family == "pruned" and _is_sparse(e.cell)]
    own = [e for e in own if e.cost is not None]
    if not own:
        return []
    sparsest = max(own, key=lambda each: each.cell.first.level or 0.0)
    runtime = "torch" if target.runtime == TORCH else "onnx"
    ms, dense = f"{runtime}_ms", f"{runtime}_dense_ms"
    name = "PyTorch" if target.runtime == TORCH else "ONNX Runtime"
    if sparsest.cell.mean(ms) is None or sparsest.cell.mean(dense) is None:
        return [
            sentence(
                f"Zeros are not speed: with {{}} pruned, {name} still multiplies all {{}} times.",
                _named(sparsest),
                figures.fact(sparsest.cell, "macs"),
            )
        ]
    return [
        sentence(
            f"Zeros are not speed: with {{}} pruned, {name} takes {{}} beside dense's {{}} in the "
            "same rounds, for it multiplies zeros.",
            _named(sparsest),
            figures.fact(sparsest.cell, ms),
            figures.fact(sparsest.cell, dense),
        )
    ]


def _data(target: Target, candidates: Sequence[Candidate]) -> list[Sentence]:
    """What pruning comes to where there is too little to fine-tune on."""
    own = [e for e in candidates if e.untrained and e.accuracy is not None and e.fits]
    if not own or any(each.reaches for each in own):
        return []
    best = min(own, key=_order)
    if target.trains:
        many = figures.fact(best.cell, "train_examples")
        why: tuple[Part, ...] = (
            Asked("examples", figures.whole(target.examples or 0)),
            " examples are fewer than the ",
            many,
            " that these networks were fine-tuned on",
        )
    else:
        why = ("There is nothing to fine-tune on",)
    return [
        sentence("{}: right after pruning, {} is at {} right.", why, _named(best), _accuracy(best))
    ]


# ---------------------------------------------------------------- what was not measured


def _not_measured(
    target: Target, candidates: Sequence[Candidate]
) -> tuple[list[Sentence], list[Click]]:
    made = [*_obstacles(candidates)]
    clicks: list[Click] = []
    possible = {each.family for each in candidates if each.cost is not None or each.obstacle}
    absent = [name for name in WAYS if name not in possible]
    measured = any(each.cell.first.source == "alternatives" for each in candidates)
    if absent:
        names = ", ".join(FAMILIES[name] for name in absent)
        unit = "" if not measured else f" in {figures.UNITS[target.limit]}"
        made.append(sentence(f"Not measured{unit}: {names}."))
    families = {each.family for each in candidates}
    if not measured or not families.issuperset(WAYS):
        clicks.append(Click("alternatives"))
    without = [e for e in candidates if e.family == "pruned" and e.cost is None and not e.obstacle]
    if without:
        rows = [id for each in without for id in each.cell.ids]
        made.append(
            sentence(
                f"Not measured in {figures.UNITS[target.limit]}: {{}} of the pruned networks.",
                figures.count(rows, len(without)),
            )
        )
        recipe = without[0].cell.first.recipe
        if recipe is not None and target.limit != "ms":
            clicks.append(Click("run", recipe))
    if target.limit == "ms" and target.runtime == SKIPS:
        made.append(sentence("No runtime that skips zeros was timed here, so nothing fits or not."))
    return made, clicks


def _obstacles(candidates: Sequence[Candidate]) -> list[Sentence]:
    """Of each way that cannot be had at all, why."""
    made = []
    for family, name in FAMILIES.items():
        own = [each for each in candidates if each.family == family]
        if own and all(each.obstacle for each in own) and family != "dense_longer":
            rows = [id for each in own for id in each.cell.ids]
            made.append(sentence(f"{_capitalized(name)} is out: {own[0].obstacle}.", rows=rows))
    return made


def _unknown(target: Target, candidates: Sequence[Candidate]) -> Advice:
    """Nothing is known of the dense model itself."""
    text = (
        "Not measured yet: nothing is known of this model beside what else makes it small. "
        "Measure the alternatives."
    )
    clicks = (Click("alternatives"),)
    return Advice(target, UNKNOWN, (sentence(text),), tuple(candidates), None, clicks)
