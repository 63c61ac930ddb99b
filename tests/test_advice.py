"""The advisor: every number of every sentence is worked out again from the row that it cites."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning import stats
from pruning.advice import shipped
from pruning.advice.advise import (
    ALREADY,
    BOTH,
    INT8,
    PRUNE,
    SMALLER,
    UNKNOWN,
    UNREACHED,
    Advice,
    advise,
)
from pruning.advice.figures import Asked, Fact, Name, Sentence
from pruning.advice.rows import Measured, shipped_rows
from pruning.advice.target import LIMITS, PRESETS, RUNTIMES, Target, preset
from pruning.cli import main
from pruning.errors import RecipeError
from pruning.sweeps import shipped as sweeps

MODELS = ("digits-cnn", "digits-resnet", "fashion-resnet20")

TARGETS: list[tuple[Target, str]] = [
    # a file of 20 kB, which int8 alone does not reach
    (Target("digits-cnn", "bytes", 20_000), PRUNE),
    # a download of a fifth of a second at 1 Mbit/s
    (Target("digits-cnn", "download", 0.2, bandwidth=1.0), PRUNE),
    # a runtime that skips zeros
    (Target("digits-cnn", "macs", 100_000, runtime="skips_zeros"), PRUNE),
    # latency, which whole channels buy
    (Target("digits-cnn", "ms", 0.018), PRUNE),
    (Target("digits-resnet", "bytes", 60_000), PRUNE),
    # fast enough as it is
    (Target("digits-cnn", "ms", 0.05), ALREADY),
    # int8 alone
    (Target("digits-cnn", "bytes", 64_000), INT8),
    # PyTorch multiplies zeros, and such small channels are no faster in it
    (Target("digits-cnn", "ms", 0.05, runtime="torch"), UNREACHED),
    # nothing to fine-tune on
    (Target("digits-cnn", "bytes", 20_000, finetune=False), UNREACHED),
    # half the width, trained from random weights, is as accurate
    (Target("digits-resnet", "macs", 200_000), SMALLER),
]
"""Ten stated targets and what becomes of them: five where pruning helps, five where it does not."""


@cache
def rows_of(model: str) -> list[Measured]:
    return shipped_rows(model)


@cache
def raw(model: str) -> dict[str, dict[str, Any]]:
    """The rows as the files hold them, by the ids that sentences cite."""
    alternatives = json.loads((shipped.FOLDER / f"{model}.json").read_text())["rows"]
    made = {f"{model}/{row['id']}": row for row in alternatives}
    dense = made[f"{model}/dense"]
    file = sweeps.FOLDER / f"{model}.json"
    sweep = json.loads(file.read_text())["rows"] if file.is_file() else []
    for row in sweep:
        own = {"torch_ms": row["latency_ms"], "torch_dense_ms": row["dense_latency_ms"]}
        macs = {"macs": dense["macs"], "macs_kept": round(row["macs"] * dense["macs"])}
        trained = {"epochs": 5 if row["sparsity"] else None, "train_examples": 1257, "bits": 32}
        level = {"level": row["sparsity"]}
        made[f"{model}/sweep/{row['recipe']}"] = {**row, **own, **macs, **trained, **level}
    return made


def asked(model: str = "digits-cnn", **fields: Any) -> Advice:
    return advise(Target(model, **fields), rows_of(model))


# ---------------------------------------------------------------- the law


def number(fact: Fact, target: Target) -> float:
    """A fact's number, from the files alone."""
    rows = [raw(target.model)[id] for id in fact.rows]
    if fact.column == "seeds":
        return len(rows)
    if fact.column == "count":
        things = {(row.get("technique") or row.get("option"), row["level"]) for row in rows}
        return len(things)
    if fact.column.startswith("change"):
        changes = [stats.paired_change(row["lost"], row["gained"], row["examples"]) for row in rows]
        end = {"change": "value", "change_low": "low", "change_high": "high"}[fact.column]
        return fmean(getattr(change, end) for change in changes)
    if fact.column == "cost":
        return fmean(cost(row, target) for row in rows)
    return fmean(row[fact.column] for row in rows)


def cost(row: dict[str, Any], target: Target) -> float:
    executed = row["macs_kept"] if target.runtime == "skips_zeros" else row["macs"]
    ms = "torch_ms" if target.runtime == "torch" else "onnx_ms"
    each = {32: 4.6, 16: 1.5, 8: 0.3}[row["bits"]]  # picojoules of a multiply and an add
    return {
        "bytes": lambda: row["bytes"],
        "compressed": lambda: row["compressed"],
        "download": lambda: row["bytes"] * 8 / (1e6 * target.bandwidth),
        "ms": lambda: row[ms] * target.slower,
        "macs": lambda: executed,
        "energy": lambda: executed * each / 1e6,
    }[target.limit]()


UNITS = {"%": 0.01, "k": 1e3, "M": 1e6, "kB": 1e3, "MB": 1e6, "k MACs": 1e3, "M MACs": 1e6}


def read(text: str) -> tuple[float, float]:
    """(The number that a text shows, half a unit of its last digit.)"""
    match = re.match(r"([+−]?)([\d,]+)(\.\d+)?(e[+-]\d+)? ?(.*)", text)
    assert match, text
    sign, whole, decimals, power, unit = match.groups()
    unit = unit.removesuffix(" by gzip")
    scale = UNITS.get(unit, 1.0) * float(f"1{power}" if power else 1)
    value = float(whole.replace(",", "") + (decimals or "")) * scale
    half = 0.5 * 10 ** -(len(decimals) - 1 if decimals else 0) * scale
    return -value if sign == "−" else value, half


def check(sentence: Sentence, target: Target) -> None:
    for part in sentence.parts:
        if isinstance(part, Fact):
            shown, half = read(part.text)
            scale = 0.01 if part.column.startswith("change") else 1.0  # points are hundredths
            wanted = number(part, target)
            # Three digits are shown of some: 1,620 as 1.62 k, or 162 kB.
            room = max(half * scale, 0.005 * abs(wanted)) + 1e-9
            assert math.isclose(shown * scale, wanted, abs_tol=room), (part, wanted)
        elif isinstance(part, Asked):
            shown, half = read(part.text)
            wanted = getattr(target, part.name)
            assert math.isclose(shown, wanted, abs_tol=max(half, 0.005 * wanted)), part
        elif isinstance(part, str):
            words = re.sub("(?i)int8|float16|bfloat16", "", part)
            assert not re.search(r"\d", words), f"{part!r} has a number that no row gives"
    for id in sentence.cites:
        assert id in raw(target.model), id


def check_all(advice: Advice) -> None:
    for sentence in advice.sentences:
        check(sentence, advice.target)
    best = advice.best
    if advice.verdict in (UNREACHED, UNKNOWN):
        assert best is None
        return
    assert best is not None and best.reaches and not best.obstacle
    rows = [raw(advice.target.model)[id] for id in best.cell.ids]
    assert fmean(cost(row, advice.target) for row in rows) <= advice.target.most
    dense = raw(advice.target.model)[f"{advice.target.model}/dense"]["accuracy"]
    drop = dense - fmean(row[best.accuracy_column] for row in rows)
    assert 100 * drop <= advice.target.within + 1e-6
    assert advice.helps is (best.family in ("pruned", "pruned_int8"))
    assert set(best.cell.ids) <= set(advice.answer.cites)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    limit = draw(st.sampled_from(sorted(LIMITS)))
    low, high = {
        "bytes": (5e3, 4e5),
        "compressed": (5e3, 4e5),
        "download": (0.02, 4),
        "ms": (0.005, 2),
        "macs": (1e4, 1e7),
        "energy": (0.01, 20),
    }[limit]
    most = math.exp(draw(st.floats(math.log(low), math.log(high))))
    return Target(
        draw(st.sampled_from(MODELS)),
        limit,
        float(f"{most:.3g}"),
        within=draw(st.sampled_from([0.0, 0.5, 1.0, 2.5, 10.0])),
        runtime=draw(st.sampled_from(sorted(RUNTIMES))),
        bandwidth=draw(st.sampled_from([0.25, 1.0, 20.0])),
        slower=draw(st.sampled_from([1.0, 4.0])),
        finetune=draw(st.booleans()),
        examples=draw(st.sampled_from([None, 0, 100, 5000])),
    )


@settings(max_examples=60)
@given(targets())
def test_every_number_of_every_answer_is_that_of_its_row(target: Target) -> None:
    advice = advise(target, rows_of(target.model))
    check_all(advice)
    # A wider limit is never harder to reach, and a link opens the same answer.
    if advice.best is not None:
        wider = advise(
            Target.from_dict(target.to_dict() | {"most": 2 * target.most}), rows_of(target.model)
        )
        assert wider.best is not None
    again = Target.from_dict(json.loads(target.to_json()))
    assert again == target


@pytest.mark.parametrize(("target", "verdict"), TARGETS, ids=lambda each: str(each)[:60])
def test_ten_stated_targets(target: Target, verdict: str) -> None:
    advice = advise(target, rows_of(target.model))
    assert advice.verdict == verdict, advice.answer.text
    assert advice.answer.text.startswith("Prune" if advice.helps else "Don't")
    check_all(advice)


def test_the_ten_are_five_and_five() -> None:
    helps = [verdict in (PRUNE, BOTH) for _, verdict in TARGETS]
    assert len(helps) == 10 and sum(helps) == 5
    assert {verdict for _, verdict in TARGETS} >= {ALREADY, INT8, SMALLER, UNREACHED, PRUNE}


# ---------------------------------------------------------------- what it knows and does not


def test_the_check_notices_a_wrong_number_and_one_of_nobody() -> None:
    advice = asked(most=64_000)
    fact = next(part for part in advice.answer.parts if isinstance(part, Fact))
    wrong = Sentence((Fact(fact.rows, fact.column, "12.3 kB"),))
    with pytest.raises(AssertionError):
        check(wrong, advice.target)
    with pytest.raises(AssertionError, match="no row gives"):
        check(Sentence(("about 90 of them",)), advice.target)
    check(Sentence((Name("float16 in PyTorch", fact.rows),)), advice.target)


def test_zeros_are_no_speed_without_a_runtime_that_skips_them() -> None:
    slow = asked(limit="macs", most=50_000, runtime="onnx", within=3)
    zeros = [one for one in slow.sentences if one.text.startswith("Zeros are not speed")]
    assert len(zeros) == 1
    best = asked(limit="macs", most=50_000, runtime="skips_zeros", within=3)
    assert not any(one.text.startswith("Zeros") for one in best.sentences)
    by_weights = [each for each in best.candidates if "weights" in each.cell.first.name]
    assert any(each.fits for each in by_weights)
    assert not any(e.fits for e in slow.candidates if "weights" in e.cell.first.name)


def test_without_enough_data_pruned_networks_count_as_they_were_before_training() -> None:
    for fields in ({"finetune": False}, {"examples": 100}):
        advice = asked(most=20_000, **fields)
        pruned = [each for each in advice.candidates if each.family == "pruned"]
        assert pruned and all(each.untrained for each in pruned)
        assert advice.verdict == UNREACHED
        text = " ".join(one.text for one in advice.sentences)
        assert "right after pruning" in text
        assert ("fewer than the 1,257" in text) == ("examples" in fields)
    with_enough = asked(most=20_000, examples=1257)
    assert not any(each.untrained for each in with_enough.candidates)


def test_int8_needs_onnx_runtime_and_its_static_kind_examples() -> None:
    torch = asked(most=64_000, runtime="torch")
    assert all(e.obstacle for e in torch.candidates if e.family == "int8")
    few = asked(most=64_000, examples=10)
    by_name = {e.cell.first.name: e for e in few.candidates}
    assert by_name["static int8"].obstacle and not by_name["dynamic int8"].obstacle
    assert few.verdict == INT8


def test_what_was_never_measured_is_said_and_offered() -> None:
    unknown = advise(Target("torchvision:resnet18"), [])
    assert unknown.verdict == UNKNOWN and unknown.helps is None
    assert [click.what for click in unknown.clicks] == ["alternatives"]
    # A sweep alone knows of no int8.
    alone = [row for row in rows_of("digits-cnn") if row.source == "sweep"]
    some = advise(Target("digits-cnn"), [*alone, _dense()])
    assert "Not measured: int8, half precision" in " ".join(one.text for one in some.sentences)
    assert [click.what for click in some.clicks] == ["alternatives"]
    # Sweeps never compressed their files: their recipes are offered.
    gzip = asked(limit="compressed", most=15_000)
    assert [click.what for click in gzip.clicks] == ["run"]
    assert "Not measured in bytes by gzip" in " ".join(one.text for one in gzip.sentences)


def _dense() -> Measured:
    return Measured("digits-cnn/dense", "sweep", "the dense model", "dense", accuracy=0.98)


def test_one_seed_is_never_clearly_better_than_a_smaller_network() -> None:
    """Where nothing is known of chance, a smaller dense network that fits is as good."""
    seeds = [row for row in rows_of("digits-cnn") if row.seed in (None, 0)]
    one = advise(Target("digits-cnn", most=60_000, within=2, runtime="torch"), seeds)
    assert one.verdict == SMALLER


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_state_what_they_assume(name: str) -> None:
    target = preset(name, "digits-cnn")
    assert PRESETS[name].assumes.endswith(".") and target.preset == name
    check_all(advise(target, rows_of("digits-cnn")))


@pytest.mark.parametrize(
    "bad",
    [
        {"limit": "weight"},
        {"most": 0},
        {"most": float("nan")},
        {"most": "20"},
        {"within": -1},
        {"runtime": "tflite"},
        {"examples": 1.5},
        {"finetune": "no"},
        {"surprise": 1},
        {"model": ""},
    ],
    ids=str,
)
def test_a_target_that_cannot_be_is_refused_in_a_sentence(bad: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Target.from_dict({"model": "digits-cnn"} | bad)


# ---------------------------------------------------------------- in a shell


def test_the_shell_gives_the_same_answer(capsys: pytest.CaptureFixture[str], home: Any) -> None:
    flags = ["advise", "--model", "digits-cnn", "--most-bytes", "20000", "--within-points", "1"]
    assert main([*flags, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    advice = asked(most=20_000)
    assert data["answer"] == advice.answer.text and data["verdict"] == advice.verdict
    assert data["helps"] is advice.helps
    assert all(set(one["rows"]) <= raw("digits-cnn").keys() for one in data["sentences"])
    assert main(flags) == 0
    assert advice.answer.cited in capsys.readouterr().out
    assert main(["advise", "--model", "digits-cnn"]) == 2
    assert "--most-bytes" in capsys.readouterr().err
    assert main(["advise", "--model", "digits-cnm", "--most-ms", "1"]) == 2
    assert "digits-cnn" in capsys.readouterr().err
    assert main(["advise", "--model", "digits-cnn", "--preset", "sparse", "--no-finetune"]) == 0
