"""Advisor: should this model be pruned at all? A target, an answer, and the rows it rests on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard import forms, glossary, jobs, models, state, waits, words
from dashboard.charts import advisor as charts
from dashboard.views import _frame
from pruning.advice import shipped
from pruning.advice.advise import Advice, Click, advise
from pruning.advice.rows import (
    Measured,
    of_alternatives,
    of_run,
    shipped_rows,
    train_examples_of,
)
from pruning.advice.target import LIMITS, PRESETS, RUNTIMES, Target, preset
from pruning.errors import PruningError
from pruning.recipe import Recipe

LIMIT_NAMES = {
    "bytes": "File",
    "compressed": "File by gzip",
    "download": "Download",
    "ms": "Latency",
    "macs": "MACs",
    "energy": "Energy",
}
RUNTIME_NAMES = {
    "torch": "PyTorch",
    "onnx": "ONNX Runtime",
    "skips_zeros": "a runtime that skips zeros",
}
STEPS = {
    "bytes": 1000.0,
    "compressed": 1000.0,
    "download": 0.05,
    "ms": 0.005,
    "macs": 10_000.0,
    "energy": 0.1,
}
FORMATS = {"ms": "%.3f", "download": "%.2f", "energy": "%.2f"}
LARGEST = 1e15
MEASURES = (
    "Trains and measures pruned, smaller, int8 and half-precision networks of this model on its "
    "own test data, in the background."
)
NO_TIME = "It takes minutes for a small model."


# ---------------------------------------------------------------- what is asked


def change(**fields: Any) -> None:
    """Change the target; what cannot be is a warning, and the target stays as it was."""
    try:
        state.set_target(replace(state.target(), **fields))
    except PruningError as error:
        state.warn(str(error))


def form(target: Target) -> None:
    forms.bound(
        st.selectbox,
        "Start from",
        target.preset or None,
        lambda name: state.set_target(preset(name, target.model)),
        key="advisor-preset",
        options=list(PRESETS),
        format_func=lambda name: PRESETS[name].title,
        placeholder="A target of your own",
    )
    if target.preset:
        st.caption(f"Assumes: {words.plain(PRESETS[target.preset].assumes)}")
    forms.bound(
        st.selectbox,
        "What is limited",
        target.limit,
        limited,
        key="advisor-limit",
        options=list(LIMITS),
        format_func=LIMIT_NAMES.__getitem__,
        help=glossary.of_label(LIMIT_NAMES[target.limit]),
    )
    number("most", f"At most, {LIMITS[target.limit]}", target.most, STEPS[target.limit])
    if target.limit == "download":
        help = "Megabits a second of the slowest line that counts."
        number("bandwidth", "Bandwidth, Mbit/s", target.bandwidth, 1.0, help=help)
    if target.limit == "ms":
        help = "How many times longer everything takes there than on the machine of the rows."
        number("slower", "Times slower than here", target.slower, 0.5, help=help)
    help = glossary.line("Tolerated drop")
    number("within", "Tolerated drop, points", target.within, 0.5, low=0.0, high=100.0, help=help)
    forms.bound(
        st.selectbox,
        "Runs in",
        target.runtime,
        lambda name: change(runtime=name),
        key="advisor-runtime",
        options=list(RUNTIMES),
        format_func=RUNTIME_NAMES.__getitem__,
        help=" ".join(f"{RUNTIME_NAMES[name]}: {text}." for name, text in RUNTIMES.items()),
    )
    forms.bound(
        st.toggle,
        "It can be fine-tuned",
        target.finetune,
        lambda value: change(finetune=value),
        key="advisor-finetune",
        help=glossary.line("Fine-tuning"),
    )
    if target.finetune:
        examples(target)


# What a limit begins with; energy with 1.
FIRST = {"bytes": 20_000, "compressed": 15_000, "download": 0.2, "ms": 0.02, "macs": 100_000}


def limited(limit: str) -> None:
    """Another limit has another unit: the number of the one before means nothing in it."""
    change(limit=limit, most=float(FIRST.get(limit, 1.0)), preset="")


def number(
    name: str,
    label: str,
    value: float,
    step: float,
    *,
    low: float = 1e-6,
    high: float = LARGEST,
    help: str | None = None,
) -> None:
    forms.bound(
        st.number_input,
        label,
        float(value),
        lambda entered: change(**{name: float(entered)}),
        key=f"advisor-{name}",
        min_value=low,
        max_value=high,
        step=step,
        format=_format(name, value),
        help=help,
    )


def _format(name: str, value: float) -> str:
    if name == "most":
        return FORMATS.get(state.target().limit, "%.0f")
    return "%g" if value == int(value) else "%.2f"


def examples(target: Target) -> None:
    def take(text: str) -> None:
        digits = text.replace(",", "").strip()
        if digits and not digits.isdecimal():
            state.warn(f"{text[:40]!r} is no number of examples: type digits, or nothing.")
            return
        change(examples=int(digits) if digits else None)

    forms.bound(
        st.text_input,
        "Labelled training examples",
        "" if target.examples is None else f"{target.examples:,}",
        take,
        key="advisor-examples",
        placeholder="as many as were measured with",
        max_chars=15,
    )


# ---------------------------------------------------------------- what is answered


def measured(model: str) -> list[Measured]:
    """Shipped rows, the own runs of who looks at it, and what was measured on the press."""
    rows = shipped_rows(model)
    if jobs.was_requested("alternatives", model=model):
        with suppress(PruningError):  # `alternatives` says why there are none
            study = jobs.study("alternatives", model=model)
            if study is not None:
                rows += of_alternatives(study.data["rows"], f"run {study.folder.name[:8]}")
    for run in jobs.finished():
        if run.spec.get("model") == model and (end := jobs.result(run)) is not None:
            rows.append(of_run(run, end, train_examples_of(model)))
    return rows


def answer(advice: Advice) -> None:
    """One sentence large, then what it rests on; behind each sentence the first of its rows."""
    st.header(words.plain(advice.answer.text), anchor=False)
    rest = [f"- {words.plain(each.text)}{cited(each.cites)}" for each in advice.sentences[1:]]
    st.caption(f"It rests on{cited(advice.answer.cites)}." if advice.answer.cites else "")
    st.markdown("\n".join(rest))


def cited(ids: tuple[str, ...]) -> str:
    """The first of the rows by its name, small; the table has all: ` [digits-cnn/int8-static]`."""
    if not ids:
        return ""
    more = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
    return f" :small[\\[{words.plain(ids[0])}{more}\\]]"


def provenance(model: str) -> str:
    there = shipped.find(model)
    if there is None:
        return ""
    machine = there.machine
    place = f"{machine.get('processor')}, {words.plural(machine.get('threads', 1), 'thread')}"
    return (
        f"Rows named {model}/ are shipped: alternatives of {there.date}, {place}, torch "
        f"{machine.get('torch')}."
    )


def clicks(advice: Advice) -> None:
    for click in advice.clicks:
        if click.what == "alternatives":
            alternatives(advice.target.model)
        else:
            run_it(click)


def alternatives(model: str) -> None:
    """A button, what is under way, or why it failed."""
    spec = {"model": model}
    if jobs.was_requested("alternatives", **spec):
        try:
            study = jobs.study("alternatives", **spec)
        except PruningError as error:
            st.caption(words.plain(f"The alternatives were not measured: {error}"))
        else:
            if study is None:
                text = "Measuring alternatives: training takes most of the time."
                _frame.awaiting(text, jobs.request("alternatives", **spec))
            return
    expected = jobs.expected("study", {"what": "alternatives", **spec})
    time = f"Takes {waits.takes(expected)}." if expected else NO_TIME
    pressed = st.button(
        "Measure the alternatives", icon=":material/play_arrow:", key="advisor-measure"
    )
    st.caption(f"{MEASURES} {time}")
    if pressed:
        jobs.measure_alternatives(model)
        st.rerun()


def run_it(click: Click) -> None:
    if click.recipe is None:
        return
    st.button(
        "Fill the plan with one of them",
        icon=":material/content_copy:",
        type="tertiary",
        key="advisor-fill",
        on_click=state.put,
        args=(Recipe.from_dict(click.recipe),),
        help="Its recipe becomes the current one: press Run on the Prune page to measure the rest.",
    )


def take_recipe(advice: Advice) -> None:
    """The recipe that the answer names becomes the current one."""
    best = advice.best
    if best is None or best.cell.first.recipe is None or not advice.helps:
        return
    recipe = Recipe.from_dict(best.cell.first.recipe)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Use this recipe",
            icon=":material/check:",
            key="advisor-use",
            on_click=state.put,
            args=(recipe,),
        )
        st.page_link(_frame.page_path("prune"), label="Run it on Prune")
        st.caption(words.plain(words.sentence(recipe)), width="stretch")


def page() -> None:
    _frame.question("Should this model be pruned at all?", "Dense", "Compact model", "Interval")
    target = state.target()
    left, right = st.columns([4, 9], gap="large")
    with left, _frame.guarded():
        form(target)
    with right, _frame.guarded():
        advice = advise(target, measured(target.model))
        answer(advice)
        take_recipe(advice)
        clicks(advice)
        if not charts.shown(advice):
            return
        figure = charts.picture(advice, dark=state.dark())
        alt = (
            f"Accuracy against {LIMITS[target.limit]} of {models.title(target.model)}: "
            f"{charts.title(advice)}."
        )
        _frame.chart(figure, alt=alt, table=charts.table(advice), name="advisor")
        _frame.table(charts.short_table(advice))
        text = " ".join(
            [
                provenance(target.model),
                "Bars: 95 % by the examples answered otherwise than dense. Milliseconds beside "
                "dense's in the same rounds. Energy is modelled for 45 nm (Horowitz, 2014).",
            ]
        )
        st.caption(words.plain(text))


page()
