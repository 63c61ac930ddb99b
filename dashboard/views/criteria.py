"""Scores: does what a criterion says of a unit come true when that unit is removed?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st
from numpy.typing import NDArray

from dashboard import jobs, models, state, words
from dashboard.charts import criteria as criteria_charts
from dashboard.charts.criteria import Judged
from dashboard.components.strip import strip
from dashboard.views import _frame
from pruning import registry
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.stats import Correlation, best, correlation

USUAL = ("magnitude", "taylor", "random")
UNITS = (16, 32, 64, 128, 256)


@st.cache_data(max_entries=1024)
def rho(score: NDArray[Any], true: NDArray[Any]) -> Correlation:
    return correlation(score, true)


def correlations(held: Judged, against: str) -> dict[str, Correlation]:
    return {name: rho(values, held.true(against)) for name, values in held.scores.items()}


# ---------------------------------------------------------------- what is asked


def controls(recipe: Recipe, card: dict[str, Any] | None) -> tuple[list[str], dict[str, Any]]:
    """Criteria, and the question that all studies share. card: of the model, None while it is worked out."""
    wide, unit, many = st.columns([6, 2, 1.5], gap="small")
    kept: dict[str, Any] = {"persist_state": "session"}
    plain = replace(recipe, criterion="magnitude", options={})  # which goes with every unit
    with unit:
        forms = units(plain, card)
        start = forms.index(recipe.granularity) if recipe.granularity in forms else 0
        granularity = st.selectbox(
            "Unit",
            forms,
            index=start,
            format_func=words.display_name,
            key=f"truth-unit-{recipe.model}",
            **kept,
        )
    with wide:
        found, help = criteria(
            replace(plain, granularity=granularity, granularity_options={}), card
        )
        usual = [name for name in dict.fromkeys([recipe.criterion, *USUAL]) if name in found]
        key = f"truth-criteria-{recipe.model}-{granularity}"
        picked = st.multiselect(
            "Criteria",
            found,
            usual,
            words.display_name,
            key,
            help,
            placeholder="Pick criteria",
            wrap=True,
            **kept,
        )
    with many:
        help = "Removed one at a time, each measured on validation data. All of a layer where it has no more; else drawn by the seed."
        most = st.selectbox("Units", UNITS, index=2, key="truth-units", help=help, **kept)
    question = {
        "model": recipe.model,
        "granularity": granularity,
        "granularity_options": recipe.granularity_options
        if granularity == recipe.granularity
        else {},
        "units": most,
        "seed": recipe.seed,
    }
    return picked, question


def units(recipe: Recipe, card: dict[str, Any] | None) -> list[str]:
    """Granularities that fit the model and whose units are the same whatever the criterion."""
    known = registry.entries("granularity").values()
    return [
        entry.name
        for entry in known
        if entry.name != "n_of_m" and not models.why_not("granularity", entry, recipe, card)
    ]


def criteria(recipe: Recipe, card: dict[str, Any] | None) -> tuple[list[str], str]:
    """Those that fit the model and the unit; and why the others do not."""
    reasons = {
        name: models.why_not("criterion", entry, recipe, card)
        for name, entry in registry.entries("criterion").items()
    }
    out = [f"{words.capitalized(name)}: {why}" for name, why in reasons.items() if why]
    return [name for name, why in reasons.items() if not why], "\n\n".join(
        ["Each orders the same units.", *out]
    )


def scored(criteria: list[str], question: dict[str, Any], recipe: Recipe) -> dict[str, Study]:
    """The criteria's studies that are there; what failed is told with the reason, what is under way is named."""
    found, waits = {}, []
    for name in criteria:
        spec = {
            **question,
            "criterion": name,
            "options": recipe.options if name == recipe.criterion else {},
        }
        try:
            study = jobs.study("units", **spec)
        except PruningError as error:
            st.info(
                words.plain(f"{words.capitalized(name)} is left out. {error}"),
                icon=":material/info:",
            )
            continue
        if study is None:
            waits.append(words.display_name(name))
        else:
            found[name] = study
    if waits:
        st.caption(words.plain(f"Scoring by {', '.join(waits)}. Usually a second or two each."))
    return found


def measured(layer: str, question: dict[str, Any]) -> Study | None:
    """The true changes of a layer's units. None while they are measured."""
    spec = {**question, "layer": layer}
    try:
        return jobs.study("criterion_check", **spec)
    except PruningError:
        st.button(
            "Measure again",
            icon=":material/replay:",
            on_click=jobs.forget,
            args=("criterion_check",),
            kwargs=spec,
        )
        raise


# ---------------------------------------------------------------- what came out


def look(held: Judged) -> tuple[str, str, bool]:
    """What orders are held against, the criterion that is drawn, and whether as ranks."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        help = "Most formulas estimate how much the loss changes. But a change for the better does no harm: then order by the rise."
        more: dict[str, Any] = {"key": "truth-against", "help": help, "persist_state": "session"}
        against = st.segmented_control(
            "True is",
            list(criteria_charts.AGAINST),
            format_func=criteria_charts.AGAINST.__getitem__,
            default="size",
            required=True,
            **more,
        )
        order = list(best(correlations(held, str(against))))
        shown = st.selectbox(
            "Criterion drawn", order, format_func=words.display_name, key="truth-shown", width=200
        )
        ranked = st.toggle(
            "As ranks",
            value=True,
            key="truth-ranks",
            help="The place in the order instead of the score itself.",
        )
    return str(against), shown, ranked


def one_layer(held: Judged) -> str:
    """The finding, and the two pictures; what orders are held against."""
    place = st.container()
    against, shown, ranked = look(held)
    found = correlations(held, against)
    said = criteria_charts.finding(held, found, against)
    place.markdown(f"#### {words.plain(said)}.")
    place.caption(
        words.plain(
            f"{len(held.units):,} of {words.plural(held.of, held.noun)}, each removed alone; loss {held.loss:.4f} on {held.examples:,} "
            "validation examples. ρ: Spearman's rank correlation, 1 is the true order, 0 is chance."
        )
    )
    left, right = st.columns(2, gap="medium")
    with left:
        figure = criteria_charts.scatter(
            held, shown, found[shown], against, ranked=ranked, dark=state.dark()
        )
        alt = f"Score by {words.display_name(shown)} against the change in loss of {len(held.units)} {held.noun}s. {said}."
        _frame.chart(
            figure,
            alt=alt,
            table=criteria_charts.rows(held),
            name=f"truth-{words.layer_name(held.layer)}-{shown}",
        )
    if len(found) > criteria_charts.MANY:
        with right:
            ladder(held, found)
        matrix(held, found, against)
    else:
        with right:
            matrix(held, found, against)
    return against


def matrix(held: Judged, found: dict[str, Correlation], against: str) -> None:
    names, values = criteria_charts.agreement(held, found, against)
    alt = f"Rank correlation of every pair of orders, the true change first. {criteria_charts.alike(names, values)}."
    _frame.chart(
        criteria_charts.grid(names, values, dark=state.dark()),
        alt=alt,
        table=criteria_charts.pairs(names, values),
        name="agreement",
    )


def ladder(held: Judged, found: dict[str, Correlation]) -> None:
    figure, table = (
        criteria_charts.ladder(held, found, dark=state.dark()),
        criteria_charts.table({held.layer: found}),
    )
    alt = f"Each criterion's correlation with the truth, with its interval. {figure['layout']['title']['text']}."
    _frame.chart(figure, alt=alt, table=table, name="ladder")


def below(held: Judged, seconds: float) -> bool:
    """The numbers as a file, and whether every layer is to be measured."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        name = f"truth-{words.layer_name(held.layer)}.csv"
        st.download_button(
            "CSV",
            criteria_charts.rows(held).to_csv(index=False),
            name,
            "text/csv",
            icon=":material/download:",
            type="tertiary",
        )
        every = st.toggle(
            "Every layer",
            key="truth-all",
            help="Measures the other layers too, one after the other; what is measured stays.",
        )
        st.caption(words.plain(f"takes about {words.seconds(seconds)} (estimate)"))
    return every


def all_layers(
    held: Judged,
    layers: list[str],
    question: dict[str, Any],
    scores: dict[str, Study],
    against: str,
) -> None:
    found, waits = {}, []
    for layer in layers:
        with _frame.guarded():
            study = measured(layer, question)
            if study is None:
                waits.append(words.layer_name(layer))
            else:
                found[layer] = correlations(
                    criteria_charts.judged(study, scores, held.noun), against
                )
    if waits:
        st.caption(
            words.plain(
                f"Measuring {', '.join(waits[:4])}{f' and {len(waits) - 4} more' if len(waits) > 4 else ''}."
            )
        )
    figure = criteria_charts.by_layer(found, held.layer, dark=state.dark())
    _frame.chart(
        figure,
        alt=f"Correlation with the truth by layer and criterion. {criteria_charts.nearest(found)}.",
        table=criteria_charts.table(found),
        name="truth",
    )


def page() -> None:
    recipe = state.recipe()
    card = jobs.study("card", model=recipe.model)
    blocks = models.blocks_of(recipe.model, card)
    place = st.container()
    picked, question = controls(recipe, card.data if card else None)
    if not picked:
        st.info("Pick one or more criteria to hold against the truth.", icon=":material/info:")
        return
    scores = scored(picked, question, recipe)
    if not blocks or not scores:
        _frame.waiting(
            f"Scoring the {question['granularity']} units of {models.title(recipe.model)}.",
            criteria_charts.HEIGHT,
        )
        return
    known = next(iter(scores.values())).data
    weights = {block.name: block.weights for block in blocks if block.name in known["names"]}
    wanted = state.layer()
    chosen = (
        wanted if wanted is not None and wanted in known["fixed"] else state.layer_among(weights)
    )
    with place:
        strip(blocks, chosen, key="strip-scores")
    if chosen in known["fixed"]:
        why = f"{words.layer_name(chosen)} has no units to remove by {question['granularity']}: {known['fixed'][chosen]} Click another layer."
        st.info(words.plain(why), icon=":material/info:")
        return
    noun = words.NOUNS.get(question["granularity"], "units").removesuffix("s")
    study = measured(chosen, question)
    if study is None:
        layer = words.layer_name(chosen)
        _frame.waiting(
            f"Removing {question['units']} {noun}s of {layer}, one at a time, and measuring the loss without each.",
            criteria_charts.HEIGHT,
        )
        return
    held = criteria_charts.judged(study, scores, noun)
    against = one_layer(held)
    layers = list(known["names"])
    if below(held, study.data["seconds"] * len(layers)):
        all_layers(held, layers, question, scores, against)


_frame.question("Does the score tell the truth: does removing what scores low really cost little?")
with _frame.guarded():
    page()
