"""Sweeps: techniques × levels × seeds as one picture, from a plan that people edit here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

import sample_models
from dashboard import (
    forms,
    glossary,
    handout,
    jobs,
    models,
    plans,
    searches,
    state,
    sweeps,
    visitors,
    waits,
    words,
)
from dashboard.charts import sweep as charts
from dashboard.views import _frame, _search_panel, _sweep_picture
from pruning import registry
from pruning.errors import PruningError
from pruning.sweeps import comparison, presets, shipped
from pruning.sweeps.comparison import Pairing, Row
from pruning.sweeps.driver import Asked
from pruning.sweeps.plan import CONTROLS, DENSE, DENSE_LONGER, OF_TECHNIQUES, PLURALS, Plan
from pruning.sweeps.shipped import Shipped
from pruning.sweeps.sweeps import Progress

LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)  # offered; any other can be typed
SEEDS = range(10)
CROSSED = {
    "criteria": "Criteria",
    "granularities": "Granularities",
    "scopes": "Scopes",
    "schedules": "Schedules",
}
OWN_OF_EACH = "Each technique of this plan has its own."
LEVELS_OF_DENSE = (DENSE, DENSE_LONGER)  # drawn as lines across, without points
CONTROL_NAMES = {"dense": "dense", "dense_longer": "dense, as long", "random": "random"}
BUDGET, RANKS, PARALLEL, PAIRED = "Same budget", "Ranks", "Every run", "Two techniques"
PAIRED_EXACTLY = (
    "Both techniques' runs of a seed answered the same test examples, and only those that they "
    "answered differently count (McNemar)."
)
BOUNDED = (
    "Which examples these runs answered was not kept: how many they gained and lost against the "
    "dense model bounds how many differ, so that the interval is rather too wide."
)
SWEEP, SEARCH = "Sweep", "Search"
PAUSES = (
    "None of its waiting runs is begun; running ones work to their end. It waits on disk, also "
    "over a restart."
)
CANCELS = (
    "Its waiting runs are dropped, and those that work are stopped within a batch; what is done "
    "stays. Runs that somebody else asked for, or another sweep, go on. Resume begins the stopped "
    "ones again."
)
MOST_REASONS = 3  # why runs failed
HEIGHT = 480  # pixels of the place that waits for the first point


# ---------------------------------------------------------------- the plan


def change(made: Callable[[Plan], Plan]) -> None:
    """Change the plan; what cannot be is a warning, and the plan stays as it was."""
    try:
        state.set_plan(made(state.plan()))
    except PruningError as error:
        state.warn(str(error))


def set_field(**fields: Any) -> None:
    change(lambda plan: replace(plan, **fields))


def editor(plan: Plan) -> None:
    """The plan, part by part."""
    preset_picker(plan)
    known = [*sample_models.names(), state.recipe().model, *plan.models]
    chips("Models", plan.models, dict.fromkeys(known), "models", models.title)
    techniques(plan)
    levels(plan)
    seeds(plan)
    training(plan)
    name, help = CONTROL_NAMES.__getitem__, glossary.of_field("controls")
    chips("Controls", plan.controls, CONTROLS, "controls", name, help)


def preset_picker(plan: Plan) -> None:
    same = [name for name, make in presets.PRESETS.items() if make(plan.models) == plan]

    def take(name: str) -> None:
        change(lambda plan: presets.PRESETS[name](plan.models))

    forms.bound(
        st.selectbox,
        "Start from",
        same[0] if same else None,
        take,
        key="plan-preset",
        options=list(presets.PRESETS),
        format_func=words.capitalized,
        placeholder="A plan of your own",
        help="A plan for a common question: edit it freely.",
    )


def chips(
    label: str,
    shown: Sequence[Any],
    options: Any,
    field: str,
    name: Callable[[Any], str] = str,
    help: str | None = None,
) -> None:
    """Several values of a field that is crossed."""
    forms.bound(
        st.multiselect,
        label,
        list(shown),
        lambda value: set_field(**{field: tuple(value)}),
        key=f"plan-{field}",
        options=list(options),
        format_func=name,
        wrap=True,
        help=help,
    )


def techniques(plan: Plan) -> None:
    """By name, or as what is crossed; the current recipe as one more."""
    if plan.techniques:
        forms.bound(
            st.multiselect,
            "Techniques",
            [technique["name"] for technique in plan.techniques],
            lambda names: change(lambda plan: plans.with_techniques(plan, names)),
            key="plan-techniques",
            options=list(plans.offered(plan)),
            wrap=True,
            help=glossary.line("Technique"),
        )
    else:
        crossed(plan)
    st.button(
        "Add the current recipe",
        icon=":material/add:",
        type="tertiary",
        key="plan-add-recipe",
        on_click=lambda: change(lambda plan: plans.with_recipe(plan, state.recipe())),
        help="As one more technique: its levels and seeds are those of the plan.",
    )


def crossed(plan: Plan) -> None:
    for plural in OF_TECHNIQUES:
        kind = PLURALS[plural]
        names = [entry.name for entry in registry.entries(kind).values()]
        help = glossary.of_field(kind)
        chips(CROSSED[plural], getattr(plan, plural), names, plural, words.display_name, help)


def levels(plan: Plan) -> None:
    known = [plans.level_text(level) for level in LEVELS]
    shown = [plans.level_text(level) for level in plan.sparsities]

    def take(texts: Sequence[str]) -> None:
        change(lambda plan: replace(plan, sparsities=tuple(sorted(map(plans.level_of, texts)))))

    forms.bound(
        st.multiselect,
        "Levels, share pruned",
        shown,
        take,
        key="plan-levels",
        options=list(dict.fromkeys([*known, *shown])),
        accept_new_options=True,
        wrap=True,
        help=glossary.line("Sparsity"),
    )


def seeds(plan: Plan) -> None:
    shown = [str(seed) for seed in plan.seeds]

    def take(texts: Sequence[str]) -> None:
        change(lambda plan: replace(plan, seeds=tuple(map(plans.seed_of, texts))))

    forms.bound(
        st.multiselect,
        "Seeds",
        shown,
        take,
        key="plan-seeds",
        options=list(dict.fromkeys([*map(str, SEEDS), *shown])),
        accept_new_options=True,
        wrap=True,
        help="With one seed there are no bands, and no winner is named.",
    )


def training(plan: Plan) -> None:
    """Epochs and steps of all recipes, unless the techniques have their own."""
    with st.container(horizontal=True, gap="small"):
        for field, label in {"epochs": "Epochs after each step", "steps": "Pruning steps"}.items():
            own = plans.differ_in(plan, field)

            def take(value: float, field: str = field) -> None:
                change(lambda plan: plans.with_field(plan, field, value))

            forms.number_field(
                label,
                plans.field(plan, field),
                take,
                key=f"plan-{field}",
                disabled=own,
                help=OWN_OF_EACH if own else glossary.of_field(field),
                **forms.limits(field),
            )


def as_text(plan: Plan) -> None:
    """The plan's JSON: to copy, to take home, to paste."""

    def draw() -> None:
        text = plan.to_json()
        st.caption("The same file works in a shell: python -m pruning sweep plan.json")
        st.code(text, language="json", wrap_lines=True)
        st.download_button(
            "Download",
            text,
            "plan.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
            key="plan-download",
        )
        pasted = st.text_area("Paste a plan", key="plan-pasted", height=120)
        if st.button("Use this plan", key="plan-paste") and pasted:
            try:
                state.set_plan(Plan.from_json(pasted))
            except PruningError as error:
                st.error(words.plain(str(error)), icon=":material/error:")
            else:
                st.rerun()

    _frame.popover("JSON", draw, key="plan-json", icon=":material/data_object:")


def duration(plan: Plan) -> str:
    """How long it takes at most, by this machine's past runs, else by those that were shipped."""
    seconds = sweeps.expected(plan)
    if seconds is not None:
        return f"About {words.seconds(seconds)} here (estimate)."
    elsewhere = sweeps.expected_elsewhere(plan)
    if elsewhere is not None:
        return f"About {words.seconds(elsewhere)} (estimate, by the shipped runs' times)."
    return f"Time: {waits.UNKNOWN}."


def run(plan: Plan) -> None:
    """What it comes to before the press, and the press."""
    st.markdown(f"**{plans.count_text(plan)}**")
    st.caption(f"{duration(plan)} Runs that are finished already count, and are not run again.")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        pressed = st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            key="sweep-run",
            shortcut=_frame.SHORTCUTS["Run"],
        )
        as_text(plan)
    if pressed:
        state.open_sweep(sweeps.submit(plan) or state.sweep())
        st.rerun()


# ---------------------------------------------------------------- which sweep


def pick_sweep() -> str | None:
    """The sweep that is open: the one in the address, else the newest, else the sample's."""
    own = {sweep.id: sweep for sweep in sweeps.listed()}
    options = [*own, *(f"{sweeps.SHIPPED}{model}" for model in shipped.names())]
    current = state.sweep()
    if current is not None and current not in options:
        options.insert(0, current)  # of another workspace, or deleted: its own place says so
    if not options:
        return None
    here = f"{sweeps.SHIPPED}{state.recipe().model}"
    first = next(iter(own), here if here in options else options[0])
    if state.has_own_plan() and current is None and not own and here not in options:
        return None

    def name(id: str) -> str:
        if id.startswith(sweeps.SHIPPED):
            return f"{id.removeprefix(sweeps.SHIPPED)}, shipped"
        sweep = own.get(id)
        if sweep is None:
            return id
        titles = ", ".join(models.title(model) for model in sweep.plan.get("models", ()))
        by = visitors.by_another(sweep.visitor)
        return " · ".join(filter(None, [sweep.label or titles, by, id[:6]]))

    forms.bound(
        st.selectbox,
        "Sweep",
        current or first,
        state.open_sweep,
        key="sweep-open",
        options=options,
        format_func=name,
        width=420,
    )
    state.show_by_default("sweep", current or first)
    return current or first


def shown_sweep(id: str) -> None:
    if id.startswith(sweeps.SHIPPED):
        finished(sweeps.shipped_of(id))
        return
    now, asked = sweeps.progress(id), searches.of(id)
    over = searches.is_over(now, asked)
    news = [jobs.WORK, *([f"{jobs.SEARCHED}{id}"] if asked else [])]
    _frame.live_part(f"sweep-{id}", [] if over else news, watch, id, over)


def finished(sweep: Shipped) -> None:
    made = _sweep_picture.provenance(sweep.plan, sweep.date, sweep.machine)
    handout.text(f"{plans.count_text(sweep.plan)}. {made}", soft=True)
    st.caption(words.plain(made))
    st.button(
        "Use its plan",
        icon=":material/content_copy:",
        type="tertiary",
        on_click=state.set_plan,
        args=(sweep.plan,),
        key="sweep-use-plan",
    )
    st.fragment(picture)(sweep.rows, sweep.plan, sweeps.shipped_pairing(sweep))


def watch(id: str, over: bool) -> None:
    with _frame.guarded():
        now, asked = sweeps.progress(id), searches.of(id)
        if searches.is_over(now, asked) and not over:
            st.rerun()  # the whole page: this stops ticking
        if asked is not None:
            _search_panel.standing(now, asked)
        heading(now, asked)
        picture(sweeps.rows(now), now.plan, sweeps.pairing)


def heading(now: Progress, asked: Asked | None) -> None:
    """How far it is, and what can be done with it. asked: the search that it is of."""
    parts = counts(now)
    handout.text(f"{plans.count_text(now.plan)}, {parts[0]}", soft=True)
    if asked is None:
        if now.state == "active" and not now.ended and now.seconds_remaining is not None:
            parts.append(f"about {words.seconds(now.seconds_remaining)} remaining (estimate)")
        st.progress(now.share, " · ".join(parts))
    else:  # how many runs it has in the end, only the search knows
        st.caption(" · ".join(parts))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if sweeps.may_change(now):
            changes(now, asked)
        if asked is None:
            press("Use its plan", ":material/content_copy:", state.set_plan, now.plan)
        else:
            _search_panel.optuna(asked)
    if now.waiting and now.state == "active":
        _frame.cluster_trouble()
    if now.failed or now.diverged:
        reasons = sweeps.failures(now.id)
        for reason, count in list(reasons.items())[:MOST_REASONS]:
            text = f"{words.plural(count, 'run')}: {reason}"
            st.warning(words.plain(text), icon=":material/error:")


def counts(now: Progress) -> list[str]:
    """Its runs by state, and what becomes of those that work where it was paused or cancelled."""
    parts = [f"{now.done:,} of {now.total:,} runs done"]
    counted = {"running": now.running, "queued": now.waiting, "failed": now.failed}
    counted |= {"diverged": now.diverged, "cancelled": now.stopped}
    parts += [f"{count:,} {word}" for word, count in counted.items() if count]
    if now.state == "paused":
        parts.append("paused: none of its waiting runs is begun")
        if now.running:
            parts.append("running ones work to their end")
    if now.state == "cancelled":
        parts.append("cancelled")
        if not now.ended:
            parts.append("what still works is being stopped, or others want it")
    return parts


def changes(now: Progress, asked: Asked | None) -> None:
    """What only those can do with it whose it is."""
    over = searches.is_over(now, asked)
    if now.state == "active" and not over:
        press("Pause", ":material/pause:", sweeps.pause, now.id, help=PAUSES)
    if asked is not None:
        # One that came to an end for a reason can be tried again, too.
        if asked.why or (now.state != "active" and not asked.over):
            press("Resume", ":material/play_arrow:", searches.resume, now.id)
    elif now.state != "active" and (not now.ended or now.stopped):
        press("Resume", ":material/play_arrow:", sweeps.resume, now.id)
    if now.state != "cancelled" and not over:
        press("Cancel", _frame.STOP, sweeps.cancel, now.id, help=CANCELS)
    if asked is None and (now.failed or (now.stopped and now.state == "active")):
        press("Run the failed again", ":material/replay:", sweeps.rerun_failed, now.id)
    if asked is None and now.state != "cancelled":
        press("Add a seed", ":material/add:", sweeps.add_seeds, now.id, 1)


def press(
    label: str, icon: str, action: Callable[..., None], *args: Any, help: str | None = None
) -> None:
    def pressed() -> None:
        action(*args)
        st.rerun()  # the whole page: what can be done now is another

    key = f"sweep-{label.lower().replace(' ', '-')}"
    st.button(label, icon=icon, type="tertiary", key=key, on_click=pressed, help=help)


# ---------------------------------------------------------------- the picture and what is beside


def picture(rows: Sequence[Row], plan: Plan, paired: Pairing) -> None:
    """Of one model: a sweep over several has one picture for each."""
    model = plan.models[0]
    if len(plan.models) > 1:
        model = st.segmented_control(
            "Model",
            plan.models,
            default=model,
            required=True,
            format_func=models.title,
            key="sweep-model",
            bind="query-params",
        )
    of_model = [row for row in rows if row["model"] == model]
    if not any(row["accuracy"] is not None for row in of_model):
        unmeasured = [row for row in of_model if row["state"] == "done"]
        if unmeasured:
            text = (
                "These runs have no accuracy: there was no data to measure it on. "
                "The table of every run has their sizes."
            )
            st.info(text, icon=":material/info:")
        else:
            _frame.waiting("The picture begins with the first run that is done.", HEIGHT)
        return
    if all(row["accuracy"] is None or row["control"] in LEVELS_OF_DENSE for row in of_model):
        # Dense alone is a line through nothing, which plotly refuses to draw.
        _frame.waiting("The dense model is measured. The picture begins with a technique.", HEIGHT)
        return
    cost = _sweep_picture.picture(of_model, plan, name="sweep", paired=paired)
    with _frame.guarded():
        beside(of_model, cost, paired)


def beside(rows: Sequence[Row], cost: str, paired: Pairing) -> None:
    """One of: all techniques at one cost; ranks; parallel coordinates; two techniques paired."""
    kind = st.segmented_control(
        "Beside it",
        (BUDGET, RANKS, PARALLEL, PAIRED),
        default=BUDGET,
        required=True,
        key="sweep-beside",
        bind="query-params",
        label_visibility="collapsed",
    )
    if kind == BUDGET:
        same_budget(rows, cost)
    elif kind == RANKS:
        ranks(rows, paired)
    elif kind == PARALLEL:
        every_run(rows)
    else:
        two_techniques(rows, paired)


def same_budget(rows: Sequence[Row], cost: str) -> None:
    """All techniques read off at one cost: what the picture is drawn against."""
    budgets = charts.budgets(rows, cost)
    if not budgets:
        st.info(f"{charts.COSTS[cost]} was not measured, so nothing can be read at it.")
        return
    texts = {charts.cost_text(budget, cost): budget for budget in budgets}
    labels = list(texts)
    chosen = labels[0]
    if len(labels) > 1:
        chosen = st.select_slider(
            f"Read every technique at {charts.COSTS[cost].lower()}",
            labels,
            value=labels[len(labels) // 2],
            key=f"sweep-budget-{cost}",
            bind="query-params",
        )
    _frame.table(charts.budget_table(rows, cost, texts[chosen]))
    st.caption(
        "Interpolated between two measured levels along the logarithm of the cost, "
        "and never beyond what was measured."
    )


def ranks(rows: Sequence[Row], paired: Pairing) -> None:
    figure = charts.rank_picture(rows, dark=state.dark(), paired=paired)
    alt = f"Ranks of techniques by level. {figure['layout']['title']['text']}."
    _frame.chart(figure, alt=alt, name="sweep-ranks")
    sentences = charts.level_sentences(rows, paired)
    handout.texts(sentences)
    st.markdown("\n".join(f"- {words.plain(text)}" for text in sentences))
    st.caption(
        "A difference counts where neither the spread over seeds (Student's t, pooled over the "
        "techniques of a level, 5 % shared among all pairs) nor the test examples answered "
        "differently explain it. Intervals of ranks follow from these differences."
    )


def every_run(rows: Sequence[Row]) -> None:
    figure = charts.parallel(rows, dark=state.dark())
    alt = "Every run as a line through its technique, level, seed, sizes and accuracy."
    _frame.chart(figure, alt=alt, name="sweep-parallel")
    numbers = charts.run_table(rows)
    columns = _frame.columns(numbers)
    for name in charts.SHARES_IN_TABLE:
        help = glossary.of_label(name)
        columns[name] = st.column_config.NumberColumn(format="percent", help=help)
    st.dataframe(
        numbers,
        hide_index=True,
        column_config=columns,
        key="sweep-runs",
        alt="Every run of the sweep.",
    )
    text = charts.csv(rows)
    _frame.download(lambda: text, "sweep.csv", key="sweep-csv")


# ---------------------------------------------------------------- two techniques


def two_techniques(rows: Sequence[Row], paired: Pairing) -> None:
    """Whether one is better than the other at a level, on the same seeds and test examples."""
    lines = comparison.techniques(comparison.cells(rows))
    if len(lines) < 2:
        st.info("There is one technique so far: two are compared.", icon=":material/info:")
        return
    first, second, at = st.columns(3)
    names = list(lines)
    a = first.selectbox("Technique", names, key="pair-first", bind="query-params")
    others = [name for name in names if name != a]
    b = second.selectbox("Against", others, key="pair-second", bind="query-params")
    of_b = {cell.sparsity: cell for cell in lines[b]}
    shared = {
        cell.sparsity: (cell, of_b[cell.sparsity]) for cell in lines[a] if cell.sparsity in of_b
    }
    if not shared:
        st.info(f"{a} and {b} have no level in common yet.", icon=":material/info:")
        return
    level = at.selectbox(
        "Level",
        list(shared),
        index=len(shared) - 1,  # the sparsest, where techniques differ most
        format_func=plans.level_text,
        key="pair-level",
        bind="query-params",
    )
    pair = shared[level]
    everyone = comparison.levels(comparison.cells(rows)).get(level, [])
    noise = comparison.noise(everyone if all(c in everyone for c in pair) else pair)
    difference = comparison.difference(*pair, noise, paired)
    name = charts.metric(rows)
    st.markdown(words.plain(charts.difference_text(a, b, difference, name)))
    st.caption(PAIRED_EXACTLY if difference.exact else BOUNDED)


# ---------------------------------------------------------------- the page


def page() -> None:
    terms = ("Sweep", "Technique", "Band", "Pareto front")
    _frame.question("Which technique keeps the most, and at which size?", *terms)
    left, right = st.columns([5, 9], gap="large")
    with left, _frame.guarded():
        kind = st.segmented_control(
            "What is started",
            (SWEEP, SEARCH),
            default=SWEEP,
            required=True,
            key="sweeps-kind",
            label_visibility="collapsed",
            persist_state="session",
        )
        if kind == SEARCH:
            _search_panel.panel()
        else:
            plan = state.plan()
            run(plan)
            editor(plan)
    with right, _frame.guarded():
        id = pick_sweep()
        if id is not None:
            shown_sweep(id)
        else:
            text = (
                "No sweep has been run yet. Press Run: the picture fills in as runs end, "
                "also while this tab is closed."
            )
            st.info(text, icon=":material/query_stats:")


page()
