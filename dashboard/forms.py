"""A technique's options as widgets, read from the registry: write an option once, in its signature, and it has a form here.

Every widget edits a field of the recipe and shows what the recipe says, also after Undo, a link, or another control.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd
import streamlit as st

from dashboard import colours, models, state, words
from dashboard.components import icons
from dashboard.components.cards import TechniqueCard, cards
from pruning import registry
from pruning.errors import PruningError
from pruning.recipe import Recipe
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
    "chance": "Looks at nothing: the control",
}


def attempt(**fields: Any) -> None:
    """Change the recipe; what cannot be followed is told, and the recipe stays as it was."""
    try:
        state.change(**fields)
    except PruningError as error:
        state.warn(str(error))


def bound(
    widget: Callable[..., Any],
    label: str,
    shown: Any,
    take: Callable[[Any], None],
    *,
    key: str,
    **more: Any,
) -> None:
    """A widget that shows `shown`, whatever changed it, and hands `take` what people enter."""

    def changed() -> None:
        value = st.session_state[key]
        if value is not None:
            take(value)

    st.session_state[key] = shown
    widget(label, key=key, on_change=changed, **more)


def number(
    label: str, field: str, *, low: float, high: float, step: float, scale: float = 1, **more: Any
) -> None:
    """A number of the recipe. scale: what is shown for 1 (100 for percent)."""
    value = getattr(state.recipe(), field)
    whole = isinstance(value, int) and not isinstance(value, bool) and scale == 1
    kind: Callable[[Any], Any] = int if whole else float

    def take(entered: Any) -> None:
        attempt(**{field: int(entered) if whole else round(entered / scale, 10)})

    limits = {
        "min_value": kind(low),
        "max_value": kind(max(high, value * scale)),
        "step": kind(step),
    }
    bound(
        st.number_input,
        label,
        kind(value if whole else round(value * scale, 8)),
        take,
        key=f"form-{field}",
        **limits,
        **more,
    )


def choice(
    label: str, field: str, options: Sequence[Any], names: dict[Any, str], **more: Any
) -> None:
    """One of a few values of the recipe, side by side."""
    shown = getattr(state.recipe(), field)
    more = {"required": True, **more}
    bound(
        st.segmented_control,
        label,
        shown,
        lambda value: attempt(**{field: value}),
        key=f"form-{field}",
        options=options,
        format_func=lambda value: names.get(value, words.technique(str(value))),
        **more,
    )


# ---------------------------------------------------------------- techniques as cards


def pick(
    kind: str,
    label: str,
    *,
    look: Literal["long", "short", "chips"] = "short",
    also: Callable[[str], dict[str, Any]] | None = None,
    study: Study | None = None,
) -> None:
    """The techniques of a kind as cards; the options of the chosen one under them. also: fields that change with the choice.

    study: the model's card, which says what fits it.
    """
    recipe = state.recipe()
    groups = grouped(
        kind,
        state.dark(),
        lambda entry: models.why_not(kind, entry, recipe, study.data if study else None),
    )
    field = FIELDS[kind]

    def picked(name: str) -> None:
        attempt(**{kind: name, field: {}, **(also(name) if also else {})})

    cards(label, groups, getattr(recipe, kind), picked, key=f"cards-{kind}", look=look)
    entry = registry.entry(kind, getattr(recipe, kind))
    if entry.options:
        options(entry, getattr(recipe, field))


def grouped(
    kind: str, dark: bool, why_not: Callable[[Entry], str] = lambda entry: ""
) -> list[tuple[str, list[TechniqueCard]]]:
    """The cards of a kind, in groups by what they look at; the control last."""
    found: dict[str, list[TechniqueCard]] = {}
    for entry in registry.entries(kind).values():
        found.setdefault(str(entry.tags.get("group", "")), []).append(
            card(entry, dark, why_not(entry))
        )
    order = [group for group in GROUPS if group != "chance"]
    rank = {
        group: i
        for i, group in enumerate(
            [*order, *(group for group in found if group not in GROUPS), "chance"]
        )
    }
    return [
        (GROUPS.get(group, group.capitalize()), found[group])
        for group in sorted(found, key=rank.__getitem__)
    ]


def card(entry: Entry, dark: bool, off: str = "") -> TechniqueCard:
    swatch = colours.technique(entry.name, dark).colour if entry.kind == "criterion" else ""
    name = words.capitalized(entry.name)
    return TechniqueCard(
        entry.name,
        name,
        entry.title,
        costs(entry),
        swatch,
        icons.of(entry.kind, entry.name),
        off,
    )


def costs(entry: Entry) -> str:
    """What it needs and costs, from its tags, where that is worth knowing before one picks it."""
    needs, cost = str(entry.tags.get("needs", "nothing")), str(entry.tags.get("cost", "nothing"))
    said = [f"needs {needs}"] if needs != "nothing" else []
    said += [cost] if cost != "nothing" else []
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def scoring(recipe: Recipe) -> str:
    """What a page waits for while units are scored, and what that takes."""
    effort = costs(registry.entry("criterion", recipe.criterion))
    return f"Scoring {models.title(recipe.model)} by {words.technique(recipe.criterion)}. {effort}"


def about(entry: Entry) -> None:
    """All there is to read on a technique, and the paper."""
    with st.popover(
        f"About {words.technique(entry.name)}", type="tertiary", icon=":material/menu_book:"
    ):
        st.markdown(words.plain(entry.about.split("\n\n")[0] if entry.about else entry.title))
        st.markdown(words.plain(entry.help.split("\n\n")[0]))
        if entry.paper:
            st.link_button("The paper", entry.paper, icon=":material/open_in_new:")


# ---------------------------------------------------------------- options


def options(entry: Entry, held: dict[str, Any]) -> None:
    """The options of a technique, folded; open, and named in the label, where they differ from the default."""
    changed = differing(entry, held)
    said = (
        ": " + ", ".join(f"{words.technique(name)} {value}" for name, value in changed.items())
        if changed
        else ""
    )
    name = words.technique(entry.name)
    with st.expander(
        f"Options of {name}{said}", expanded=bool(changed), key=f"options-{entry.kind}-{entry.name}"
    ):
        for option in entry.options:
            widget(entry, option, held)


def differing(entry: Entry, held: dict[str, Any]) -> dict[str, Any]:
    """The options whose value is not the default."""
    known = {option.name: option.default for option in entry.options}
    return {name: value for name, value in held.items() if name in known and value != known[name]}


def with_option(entry: Entry, held: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The options with one changed; defaults are left out, so that equal recipes stay equal."""
    return differing(entry, {**held, name: value})


def widget(entry: Entry, option: Option, held: dict[str, Any]) -> None:
    """One option as the widget of its kind; the default stands in the help."""
    shown = held.get(option.name, option.default)
    label = words.technique(option.name).capitalize()
    help = " ".join(filter(None, [option.help, f"Default: {option.default}."]))
    key = f"option-{entry.kind}-{entry.name}-{option.name}"

    def take(value: Any) -> None:
        attempt(**{FIELDS[entry.kind]: with_option(entry, held, option.name, value)})

    match option.kind:
        case "bool":
            bound(st.toggle, label, bool(shown), take, key=key, help=help)
        case "choice":
            names = {value: words.technique(str(value)) for value in option.choices}
            more = {
                "options": list(option.choices),
                "format_func": lambda value: names.get(value, str(value)),
                "help": help,
            }
            bound(st.selectbox, label, shown, take, key=key, **more)
        case "int":
            bound(st.number_input, label, int(shown), take, key=key, step=1, help=help)
        case "float":
            bound(
                st.number_input,
                label,
                float(shown),
                take,
                key=key,
                step=None,
                format="%g",
                help=help,
            )
        case _:
            bound(st.text_input, label, str(shown), take, key=key, help=help)


# ---------------------------------------------------------------- layers


def layers(label: str, recipe: Recipe, names: Sequence[str]) -> None:
    """Layers that stay dense."""
    known = list(dict.fromkeys([*names, *recipe.exclude]))
    more = {"options": known, "format_func": words.layer_name, "placeholder": "none"}
    bound(
        st.multiselect,
        label,
        list(recipe.exclude),
        lambda chosen: attempt(exclude=tuple(chosen)),
        key="form-exclude",
        **more,
    )


def ratios(shown: dict[str, float], take: Callable[[dict[str, float]], None]) -> None:
    """A table of shares to edit, one for each layer.

    It is made anew only when something else changed the shares, so that the cursor stays where it is.
    """
    held = st.session_state.get("form-ratios")
    if held is None or edited(held["base"], _edits(held["key"])) != shown:
        held = {"base": shown, "key": f"ratios-{time.monotonic_ns()}"}
        st.session_state["form-ratios"] = held
    base = held["base"]
    frame = pd.DataFrame(
        {
            "layer": [words.layer_name(name) for name in base],
            "remove, %": [round(value * 100, 6) for value in base.values()],
        }
    )
    column = st.column_config.NumberColumn(
        "remove, %", min_value=0.0, max_value=99.9, step=0.1, format="%g", required=True
    )
    st.data_editor(
        frame,
        key=held["key"],
        hide_index=True,
        disabled=["layer"],
        column_config={"remove, %": column},
        height=min(300, 37 + 35 * len(base)),
        alt="Share to remove of each layer.",
        on_change=lambda: take(edited(base, _edits(held["key"]))),
    )


def _edits(key: str) -> dict[int, dict[str, Any]]:
    return st.session_state.get(key, {}).get("edited_rows", {})


def edited(base: dict[str, float], edits: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Shares by layer, with the edits of the table (row number -> column -> value) made."""
    names = list(base)
    changed = {
        names[int(row)]: round(cells["remove, %"] / 100, 8)
        for row, cells in edits.items()
        if cells.get("remove, %") is not None
    }
    return {**base, **changed}
