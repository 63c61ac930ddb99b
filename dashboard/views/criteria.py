"""Criteria: the criterion check. Does removing what scores low really cost little loss?

Units of one layer are removed alone (leave-one-out), and the change in loss is compared with the
scores of several criteria by rank correlation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st
from numpy.typing import NDArray

from dashboard import jobs, models, state, words
from dashboard.charts import criteria as charts
from dashboard.charts.criteria import LayerCheck
from dashboard.components.strip import strip
from dashboard.views import _frame
from pruning import registry
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.stats import Correlation, best, correlation

USUAL = ("magnitude", "taylor")
UNITS = (32, 64, 128, 256, 512, 1024)
USUAL_UNITS = 256  # of fewer, random orders reach a correlation that looks like one
UNITS_HELP = (
    "Removed one at a time, each measured on validation data. "
    "All of a layer where it has no more; else sampled by the seed. "
    "The more, the narrower what random orders reach."
)
RANDOM_HELP = "Random: no criterion here, but the grey band, in which 95 of 100 random orders lie."
REFERENCE_HELP = (
    "Most formulas estimate how much the loss changes. "
    "But a change for the better does no harm: then rank by the rise."
)
KEEP: dict[str, Any] = {"persist_state": "session", "bind": "query-params"}
"""What people pick stays when they go to another page and come back."""


@st.cache_data(max_entries=1024)
def cached_correlation(score: NDArray[Any], change: NDArray[Any]) -> Correlation:
    return correlation(score, change)  # with its bootstrap, which is slow enough to see


def correlations_of(check: LayerCheck, reference: str) -> dict[str, Correlation]:
    change = check.reference(reference)
    return {name: cached_correlation(score, change) for name, score in check.scores.items()}


# ---------------------------------------------------------------- what is compared


def controls(recipe: Recipe, card: dict[str, Any] | None) -> tuple[list[str], dict[str, Any]]:
    """The picked criteria, and the fields that all their studies share.

    card: of the model, None while it is worked out.
    """
    wide, unit, many = st.columns([6, 2, 1.5], gap="small")
    # Magnitude goes with every unit, so that it rules none out.
    plain = replace(recipe, criterion="magnitude", options={})
    with unit:
        granularities = fitting_granularities(plain, card)
        own = recipe.granularity
        granularity = st.selectbox(
            "Unit",
            granularities,
            index=granularities.index(own) if own in granularities else 0,
            format_func=words.display_name,
            key=f"criteria-unit-{recipe.model}",
            **KEEP,
        )
    with wide:
        by_unit = replace(plain, granularity=granularity, granularity_options={})
        fitting, help = fitting_criteria(by_unit, card)
        usual = [name for name in dict.fromkeys([recipe.criterion, *USUAL]) if name in fitting]
        picked = st.multiselect(
            "Criteria",
            fitting,
            usual,
            words.display_name,
            f"criteria-picked-{recipe.model}-{granularity}",
            help,
            placeholder="Pick criteria",
            wrap=True,
            **KEEP,
        )
    with many:
        units = st.selectbox(
            "Units",
            UNITS,
            index=UNITS.index(USUAL_UNITS),
            key="criteria-units",
            help=UNITS_HELP,
            **KEEP,
        )
    shared = {
        "model": recipe.model,
        "granularity": granularity,
        "granularity_options": recipe.granularity_options if granularity == own else {},
        "units": units,
        "seed": recipe.seed,
    }
    return picked, shared


def fitting_granularities(recipe: Recipe, card: dict[str, Any] | None) -> list[str]:
    """Those that fit the model, and whose units are the same whatever the criterion."""
    return [
        name
        for name, entry in registry.entries("granularity").items()
        # Which weights of N:M go together depends on the scores: no unit has one loss change.
        if name != "n_of_m" and not models.why_not("granularity", entry, recipe, card)
    ]


def fitting_criteria(recipe: Recipe, card: dict[str, Any] | None) -> tuple[list[str], str]:
    """Those that fit the model and the unit; and, as a help text, why the others do not."""
    fitting = []
    help = ["Each ranks the same units.", RANDOM_HELP]
    for name, entry in registry.entries("criterion").items():
        if name == "random":
            continue
        why = models.why_not("criterion", entry, recipe, card)
        if why:
            help.append(f"{words.capitalized(name)}: {why}")
        else:
            fitting.append(name)
    return fitting, "\n\n".join(help)


def score_studies(criteria: list[str], shared: dict[str, Any], recipe: Recipe) -> dict[str, Study]:
    """The criteria's scores that are there. What failed gives its reason, what works is named."""
    studies = {}
    waiting = []
    for name in criteria:
        options = recipe.options if name == recipe.criterion else {}
        try:
            study = jobs.study("units", **shared, criterion=name, options=options)
        except jobs.Costly as costly:
            _frame.ask(costly)
            continue
        except PruningError as error:
            text = f"{words.capitalized(name)} is left out. {error}"
            st.info(words.plain(text), icon=":material/info:")
            continue
        if study is None:
            waiting.append(name)
        else:
            studies[name] = study
    if waiting:
        text = f"Scoring by {', '.join(words.display_name(name) for name in waiting)}."
        first = waiting[0]
        options = recipe.options if first == recipe.criterion else {}
        job = jobs.request("units", **shared, criterion=first, options=options)
        _frame.awaiting(text, job)
    return studies


def loss_changes(layer: str, shared: dict[str, Any]) -> Study | None:
    """The leave-one-out loss changes of a layer's units. None while they are measured."""
    return jobs.study("criterion_check", **shared, layer=layer)


# ---------------------------------------------------------------- one layer


def one_layer(check: LayerCheck) -> str:
    """The finding and the two charts; returns which loss change was compared with."""
    # The finding depends on the controls below it; page.css keeps its height until it is there.
    top = st.container(key="criteria-finding")
    reference, criterion, ranked = chart_controls(check)
    correlations = correlations_of(check, reference)
    finding = charts.finding(check, correlations)
    top.markdown(f"## {words.plain(finding)}.")
    counted = f"{len(check.units):,} of {words.plural(check.total, check.noun)}"
    top.caption(
        words.plain(
            f"{counted}, each removed alone; loss {check.loss:.4f} on {check.examples:,} "
            "validation examples. ρ: Spearman's rank correlation, 1 is the order of the loss "
            f"change, 0 is no relation. {random_orders(check)}"
        )
    )
    few = len(correlations) <= charts.MANY
    if few:
        ladder(check, correlations)
    left, right = _frame.halves()
    with left:
        figure = charts.scatter(
            check,
            criterion,
            correlations[criterion],
            reference,
            ranked=ranked,
            dark=state.dark(),
        )
        alt = (
            f"Score by {words.display_name(criterion)} against the change in loss of "
            f"{len(check.units)} {check.noun}s. {finding}."
        )
        name = f"criteria-{words.layer_name(check.layer)}-{criterion}"
        _frame.chart(figure, alt=alt, table=charts.unit_table(check), name=name)
    with right:
        if few:
            matrix(check, correlations, reference)
        else:
            ladder(check, correlations)
    if not few:
        matrix(check, correlations, reference)
    return reference


def random_orders(check: LayerCheck) -> str:
    band = check.band
    if band is None:
        return ""
    return f"Of 100 random orders 95 have ρ from {charts.rho(band.low)} to {charts.rho(band.high)}."


def chart_controls(check: LayerCheck) -> tuple[str, str, bool]:
    """(What scores are compared with, the criterion that is drawn, whether as ranks)."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        reference = st.segmented_control(
            "Compare with",
            list(charts.REFERENCES),
            format_func=charts.REFERENCES.__getitem__,
            default="absolute",
            required=True,
            key="criteria-reference",
            help=REFERENCE_HELP,
            **KEEP,
        )
        criterion = st.selectbox(
            "Criterion shown",
            list(best(correlations_of(check, str(reference)))),
            format_func=words.display_name,
            key="criteria-shown",
            bind="query-params",
            width=200,
        )
        ranked = st.toggle(
            "As ranks",
            value=True,
            key="criteria-ranks",
            bind="query-params",
            help="The place in the order instead of the score itself.",
        )
    return str(reference), criterion, ranked


def matrix(check: LayerCheck, correlations: dict[str, Correlation], reference: str) -> None:
    names, values = charts.agreement(check, correlations, reference)
    alt = (
        "Rank correlation of every pair of orders, the loss change first. "
        f"{charts.alike(names, values)}."
    )
    figure = charts.grid(names, values, dark=state.dark())
    _frame.chart(figure, alt=alt, table=charts.pair_table(names, values), name="agreement")


def ladder(check: LayerCheck, correlations: dict[str, Correlation]) -> None:
    figure = charts.ladder(check, correlations, dark=state.dark())
    title = figure["layout"]["title"]["text"]
    alt = f"Each criterion's correlation with the loss change, with its interval. {title}."
    units = {check.layer: len(check.units)}
    table = charts.correlation_table({check.layer: correlations}, units)
    _frame.chart(figure, alt=alt, table=table, name="ladder")


# ---------------------------------------------------------------- every layer


def ask_for_every_layer(check: LayerCheck, seconds: float) -> bool:
    """The numbers as a file, and whether the other layers are to be measured too."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        units = charts.unit_table(check)
        file = f"criteria-{words.layer_name(check.layer)}.csv"
        _frame.download(lambda: units.to_csv(index=False), file, key="criteria-csv")
        every = st.toggle(
            "Every layer",
            key="criteria-every-layer",
            help="Measures the other layers too, one after the other; what is measured is kept.",
        )
        st.caption(words.plain(f"takes about {words.seconds(seconds)} (estimate)"))
    return every


def every_layer(
    check: LayerCheck,
    layers: list[str],
    shared: dict[str, Any],
    scores: dict[str, Study],
    reference: str,
) -> None:
    by_layer = {}
    units = {}
    waiting = []
    for layer in layers:
        with _frame.guarded():
            changes = loss_changes(layer, shared)
            if changes is None:
                waiting.append(words.layer_name(layer))
                continue
            of_layer = charts.layer_check(changes, scores, check.noun)
            by_layer[layer] = correlations_of(of_layer, reference)
            units[layer] = len(of_layer.units)
    if waiting:
        more = f" and {len(waiting) - 4} more" if len(waiting) > 4 else ""
        st.caption(words.plain(f"Measuring {', '.join(waiting[:4])}{more}."))
    figure = charts.by_layer(by_layer, units, check.layer, dark=state.dark())
    verdict = charts.layer_verdict(by_layer, units)
    alt = f"Correlation with the loss change by layer and criterion. {verdict}."
    table = charts.correlation_table(by_layer, units)
    _frame.chart(figure, alt=alt, table=table, name="criteria-layers")


def page() -> None:
    recipe = state.recipe()
    card = jobs.study("card", model=recipe.model)
    blocks = models.blocks_of(recipe.model, card)
    top = st.container()  # the strip needs the scores, which the controls below ask for
    picked, shared = controls(recipe, card.data if card else None)
    if not picked:
        text = "Pick one or more criteria to compare with the loss change."
        st.info(text, icon=":material/info:")
        return
    granularity = shared["granularity"]
    scores = score_studies(picked, shared, recipe)
    if not blocks or not scores:
        text = f"Scoring the {granularity} units of {models.title(recipe.model)}."
        _frame.waiting(text, charts.HEIGHT)
        return
    units = next(iter(scores.values())).data  # the same for every criterion
    not_prunable = units["fixed"]
    layer = state.layer()
    if layer is None or layer not in not_prunable:
        prunable = {block.name: block.weights for block in blocks if block.name in units["names"]}
        layer = state.layer_among(prunable)
    with top:
        strip(blocks, layer, key="strip-criteria")
    name = words.layer_name(layer)
    if layer in not_prunable:
        why = f"{name} has no units to remove by {granularity}: {not_prunable[layer]}"
        st.info(words.plain(f"{why} Click another layer."), icon=":material/info:")
        return
    noun = words.NOUNS.get(granularity, "units").removesuffix("s")
    changes = loss_changes(layer, shared)
    if changes is None:
        text = (
            f"Removing {shared['units']} {noun}s of {name}, one at a time, "
            "and measuring the loss without each."
        )
        job = jobs.request("criterion_check", **shared, layer=layer)
        _frame.waiting(text, charts.HEIGHT, job)
        return
    check = charts.layer_check(changes, scores, noun)
    reference = one_layer(check)
    layers = list(units["names"])
    if ask_for_every_layer(check, changes.data["seconds"] * len(layers)):
        every_layer(check, layers, shared, scores, reference)


_frame.question("Criterion check: does removing what scores low really cost little loss?")
with _frame.guarded():
    page()
