"""Widgets that edit the recipe: numbers, choices, techniques as cards, options, ratios of layers.

Options are read from the registry: write one once, in a technique's signature, and it has a widget.
Every widget shows what the recipe says, also after Undo, a link, or another widget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd
import streamlit as st

from dashboard import colours, models, state, words
from dashboard.components import icons
from dashboard.components.cards import TechniqueCard, cards
from pruning import registry
from pruning.errors import PruningError
from pruning.recipe import RANGES, Recipe
from pruning.registry import Entry, Option
from pruning.runs.results import Study

FIELDS = {
    "criterion": "options",
    "granularity": "granularity_options",
    "scope": "scope_options",
    "schedule": "schedule_options",
}
"""Kind of technique -> the field of the recipe that holds its options."""

GROUPS = {
    "weights": "Looks at the weights",
    "gradients": "Looks at gradients",
    "activations": "Looks at activations",
    "curvature": "Looks at curvature",
    "control": "Looks at nothing: the control",
}
"""Group of a criterion, as its tag names it -> its title above the cards."""
CONTROL = "control"

LARGEST = 2**53 - 1
"""The largest whole number that a browser's numbers hold exactly."""


def attempt(**fields: Any) -> None:
    """Change the recipe; a value that cannot be is a warning, and the recipe stays as it was."""
    changed(**fields)


def changed(**fields: Any) -> bool:
    """`attempt`, and whether it could be."""
    try:
        state.change(**fields)
    except PruningError as error:
        state.warn(str(error))
        return False
    return True


def bound(
    widget: Callable[..., Any],
    label: str,
    shown: Any,
    take: Callable[[Any], None],
    *,
    key: str,
    **more: Any,
) -> None:
    """A widget that shows `shown`, whatever changed it, and calls `take` with what people enter.

    key: its own, until something else changes what it shows.
    """
    own = state.widget_key(key, shown)

    def changed() -> None:
        value = state.widget_value(own)
        if value is not None and value != shown:  # None: a number field that was emptied
            take(value)

    # A default would be ignored once the widget exists; this is how Streamlit lets us set it.
    state.set_widget(own, shown)
    widget(label, key=own, on_change=changed, **more)


def lock(control: str, more: dict[str, Any]) -> dict[str, Any]:
    """A widget's arguments, with those of a locked control: disabled, and why as its help."""
    why = state.why_locked(control)
    return {**more, "disabled": True, "help": why} if why else more


def number(
    label: str, field: str, *, taken: Callable[[], object] | None = None, **more: Any
) -> None:
    """A number of the recipe. taken: called once it was changed, by the same callback.

    more: step, scale and, where the page wants less than may be, low and high of `number_field`;
    and the widget's own arguments.
    """

    if state.hidden(field):
        return

    def take(value: float) -> None:
        attempt(**{field: value})
        if taken is not None:
            taken()

    number_field(
        label,
        getattr(state.recipe(), field),
        take,
        key=state.form_key(field),
        **{**limits(field, float(more.get("scale", 1))), **lock(field, more)},
    )


def limits(field: str, scale: float = 1) -> dict[str, float]:
    """`low` and `high` of a field's widget, as the recipe's own range has them."""
    range = RANGES[field]
    # An end that is no part of the range: the last number of one decimal before it.
    high = range.high * scale - (0.1 if range.below else 0)
    return {"low": range.low * scale, "high": high}


def number_field(
    label: str,
    value: float,
    take: Callable[[float], None],
    *,
    key: str,
    low: float,
    high: float,
    step: float = 1,
    scale: float = 1,
    **more: Any,
) -> None:
    """A number: whole where the value is. scale: what is shown for 1 (100 for percent)."""
    kind: Callable[[Any], Any] = int if isinstance(value, int) and scale == 1 else float

    def entered(shown: Any) -> None:
        # Rounded: 0.1 % entered and divided by 100 must be the same ratio wherever it is typed.
        take(int(shown) if kind is int else round(shown / scale, 10))

    if abs(value) > LARGEST:
        # A seed from a link: the field could not hold it, and one that is off by some is another.
        help = "Too large for a field of a browser: it stays as it is."
        st.text_input(label, f"{value:,}", key=f"{key}-large", disabled=True, help=help)
        return
    # Streamlit demands one type for all, and fails on a value outside the limits: a recipe
    # from a link may lie above `high`.
    shown = kind(value if kind is int else round(value * scale, 8))
    bounds = {
        "min_value": kind(min(low, shown)),
        "max_value": kind(max(min(high, LARGEST), shown)),
        "step": kind(step),
    }
    bound(st.number_input, label, shown, entered, key=key, **bounds, **more)


def choice(
    label: str, field: str, options: Sequence[Any], names: dict[Any, str], **more: Any
) -> None:
    """One of a few values of the recipe, side by side."""
    if state.hidden(field):
        return

    def name(value: Any) -> str:
        return names.get(value, words.technique(str(value)))

    def take(value: Any) -> None:
        attempt(**{field: value})

    bound(
        st.segmented_control,
        label,
        getattr(state.recipe(), field),
        take,
        key=state.form_key(field),
        options=options,
        format_func=name,
        **{"required": True, **lock(field, more)},
    )


# ---------------------------------------------------------------- techniques as cards


def pick(
    kind: str,
    label: str,
    *,
    look: Literal["long", "short", "chips"] = "short",
    also: Callable[[str], dict[str, Any]] | None = None,
    take: Callable[[str], None] | None = None,
    study: Study | None = None,
) -> None:
    """The techniques of a kind as cards; below them the options of the chosen one.

    also: technique -> fields that change with it; take: changes the recipe, where that is more than
    fields; study: the model's card, which says what fits it.
    """
    recipe = state.recipe()
    data = study.data if study else None
    chosen = getattr(recipe, kind)
    field = FIELDS[kind]

    def why_not(entry: Entry) -> str:
        if entry.name != chosen and (locked := state.why_locked(kind)):
            return locked
        return models.why_not(kind, entry, recipe, data)

    def picked(name: str) -> None:
        attempt(**{kind: name, field: {}, **(also(name) if also else {})})

    groups = grouped(kind, state.dark(), why_not)
    cards(label, groups, chosen, take or picked, key=state.cards_key(kind), look=look)
    entry = registry.entry(kind, chosen)
    if entry.options:
        options(entry, getattr(recipe, field))


def grouped(
    kind: str, dark: bool, why_not: Callable[[Entry], str] = lambda entry: ""
) -> list[tuple[str, list[TechniqueCard]]]:
    """The cards of a kind, in groups by what the technique looks at; the control last."""
    groups: dict[str, list[TechniqueCard]] = {}
    for entry in registry.entries(kind).values():
        group = str(entry.tags.get("group", ""))
        groups.setdefault(group, []).append(card(entry, dark, why_not(entry)))
    # Groups that a new technique brings stand between those known here and the control.
    new = [group for group in groups if group not in GROUPS]
    order = [*(group for group in GROUPS if group != CONTROL), *new, CONTROL]
    return [
        (GROUPS.get(group, group.capitalize()), groups[group]) for group in order if group in groups
    ]


def card(entry: Entry, dark: bool, off: str = "") -> TechniqueCard:
    # Only criteria have a look of their own in charts.
    style = colours.technique(entry.name, dark) if entry.kind == "criterion" else None
    return TechniqueCard(
        id=entry.name,
        name=words.capitalized(entry.name),
        text=entry.title,
        more=costs(entry),
        swatch=style.colour if style else "",
        mark=style.marker if style else "",
        drawing=icons.of(entry.kind, entry.name),
        off=off,
    )


def costs(entry: Entry) -> str:
    """What it needs and costs, from its tags, where that is worth knowing before one picks it."""
    needs = str(entry.tags.get("needs", "nothing"))
    cost = str(entry.tags.get("cost", "nothing"))
    parts = []
    if needs != "nothing":
        parts.append(f"needs {needs}")
    if cost != "nothing":
        parts.append(cost)
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def scoring(recipe: Recipe) -> str:
    """What a page waits for while units are scored, and what that costs."""
    cost = costs(registry.entry("criterion", recipe.criterion))
    return f"Scoring {models.title(recipe.model)} by {words.technique(recipe.criterion)}. {cost}"


def about(entry: Entry) -> None:
    """All there is to read on a technique, and the paper."""
    label = f"About {words.technique(entry.name)}"
    first = entry.about.split("\n\n")[0] if entry.about else entry.title
    with st.popover(label, type="tertiary", icon=":material/menu_book:"):
        st.markdown(words.plain(first))
        st.markdown(words.plain(entry.help.split("\n\n")[0]))
        if entry.paper:
            st.link_button("The paper", entry.paper, icon=":material/open_in_new:")


# ---------------------------------------------------------------- options


def options(entry: Entry, values: dict[str, Any]) -> None:
    """The options of a technique, folded; where they differ from the default, open and named."""
    changed = differing(entry, values)
    label = f"Options of {words.technique(entry.name)}"
    if changed:
        named = [f"{words.technique(name)} {value}" for name, value in changed.items()]
        label += ": " + ", ".join(named)
    key = f"options-{entry.kind}-{entry.name}"
    with st.expander(words.plain(label), expanded=bool(changed), key=key):
        for option in entry.options:
            widget(entry, option, values)


def differing(entry: Entry, values: dict[str, Any]) -> dict[str, Any]:
    """The options whose value is not the default."""
    defaults = {option.name: option.default for option in entry.options}
    return {
        name: value
        for name, value in values.items()
        if name in defaults and value != defaults[name]
    }


def with_option(entry: Entry, values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The options with one changed; defaults are left out, so that equal recipes stay equal."""
    return differing(entry, {**values, name: value})


def widget(entry: Entry, option: Option, values: dict[str, Any]) -> None:
    """One option as the widget of its kind; the default stands in the help."""
    shown = values.get(option.name, option.default)
    label = words.technique(option.name).capitalize()
    help = words.plain(f"{option.help} Default: {option.default}.".strip())
    common = {
        "key": state.option_key(entry.kind, entry.name, option.name),
        **lock(entry.kind, {"help": help}),
    }

    def take(value: Any) -> None:
        attempt(**{FIELDS[entry.kind]: with_option(entry, values, option.name, value)})

    def name(value: Any) -> str:
        return words.technique(str(value)) if value in option.choices else str(value)

    match option.kind:
        case "bool":
            bound(st.toggle, label, bool(shown), take, **common)
        case "choice":
            choices = list(option.choices)
            bound(st.selectbox, label, shown, take, options=choices, format_func=name, **common)
        case "int" | "float" if option.range is not None:
            kind = int if option.kind == "int" else float
            bounds: dict[str, Any] = {
                "min_value": kind(option.range.low),
                "max_value": kind(option.range.high),
                "step": 1 if kind is int else None,
                "format": None if kind is int else "%g",
            }
            bound(st.number_input, label, kind(shown), take, **bounds, **common)
        case _:
            bound(st.text_input, label, str(shown), take, **common)


# ---------------------------------------------------------------- layers

SHARE = "remove, %"
"""The column of the table of ratios that people edit."""


def layers(label: str, recipe: Recipe, names: Sequence[str]) -> None:
    """Layers that stay dense."""
    if state.hidden("exclude"):
        return

    def take(chosen: list[str]) -> None:
        attempt(exclude=tuple(chosen))

    bound(
        st.multiselect,
        label,
        list(recipe.exclude),
        take,
        key=state.form_key("exclude"),
        # A recipe from a link may exclude layers that the model does not have.
        options=list(dict.fromkeys([*names, *recipe.exclude])),
        format_func=words.layer_name,
        placeholder="none",
        **lock("exclude", {}),
    )


def ratios(shown: dict[str, float], take: Callable[[dict[str, float]], None]) -> None:
    """A table of ratios to edit, one for each layer.

    It is made anew only when something else changed them, so that the cursor stays where it is.
    """
    table = state.ratio_table()
    if table is None or edited(table.base, _edits(table.key)) != shown:
        table = state.new_ratio_table(shown)
    base, key = table.base, table.key
    frame = pd.DataFrame(
        {
            "layer": [words.layer_name(name) for name in base],
            SHARE: [round(value * 100, 6) for value in base.values()],
        }
    )
    column = st.column_config.NumberColumn(
        SHARE, min_value=0.0, max_value=99.9, step=0.1, format="%g", required=True
    )
    st.data_editor(
        frame,
        key=key,
        hide_index=True,
        disabled=True if state.locked("scope") else ["layer"],
        column_config={SHARE: column},
        height=min(300, 37 + 35 * len(base)),
        alt="Share to remove of each layer.",
        on_change=lambda: take(edited(base, _edits(key))),
    )


def _edits(key: str) -> dict[int, dict[str, Any]]:
    return state.widget_value(key, {}).get("edited_rows", {})


def edited(base: dict[str, float], edits: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Ratios by layer, with the edits of the table (row number -> column -> value) made."""
    names = list(base)
    changed = {
        names[int(row)]: round(cells[SHARE] / 100, 8)
        for row, cells in edits.items()
        if cells.get(SHARE) is not None
    }
    return {**base, **changed}
