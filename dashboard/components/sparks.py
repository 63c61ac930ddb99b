"""Units of a layer as a sorted matrix of sparklines, a bar for each class; a click picks one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from dashboard import colours, state
from dashboard.components.base import control


@dataclass(frozen=True)
class Spark:
    """A unit. values: a bar for each class, [] for none; note: the number below the bars; sentence:
    what a screen reader reads.
    """

    id: int
    label: str
    note: str
    values: list[float]
    removed: bool
    sentence: str


def sparks(
    label: str, units: Sequence[Spark], chosen: int | None, take: Callable[[int], None], key: str
) -> None:
    """Draw them in this order; `take` gets the number of the unit that was picked."""
    dark = state.dark()
    tones = colours.palette(dark)
    data = {
        "label": label,
        "units": [asdict(unit) for unit in units],
        "chosen": chosen,
        "tones": {
            "bar": tones.kept,
            "below": tones.highlight,
            "pale": tones.removed,
            "ground": tones.ground,
            "panel": tones.panel,
            "muted": tones.muted,
        },
    }
    known = {unit.id for unit in units}

    def picked() -> None:
        number = state.widget_value(key).picked
        if isinstance(number, int) and number in known:  # from the browser: it may be anything
            take(number)

    control("sparks")(key=key, data=data, on_picked_change=picked)
