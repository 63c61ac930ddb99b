"""A progress bar while a run goes, in a notebook or a shell."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from pruning.events import (
    Epoch,
    Event,
    Failed,
    Finished,
    Halted,
    Measured,
    Point,
    Pruned,
    Started,
    Ticket,
)
from pruning.metrics import Quality

with warnings.catch_warnings():
    # Without ipywidgets it draws the bar as text and says so, which helps nobody in a notebook.
    warnings.filterwarnings("ignore", module="tqdm")
    from tqdm.auto import tqdm


def watch(events: Iterable[Event]) -> Iterator[Event]:
    """The same events, with a progress bar that follows them.

        *events, result = pruning.watch(pruning.run(recipe, work))

    Counts epochs; pruning steps where nothing is trained, and cells of a sensitivity map.
    """
    with tqdm(unit="epoch") as bar:
        for event in events:
            _advance(bar, event)
            yield event


def _advance(bar: Any, event: Event) -> None:
    match event:
        case Started(epochs=epochs):
            bar.reset(total=epochs or None)
            bar.set_description_str("dense model")
        case Pruned(step=step, steps=steps):
            bar.set_description_str(f"step {step} of {steps}")
            if bar.total is None or bar.unit == "step":
                bar.unit, bar.total = "step", steps
                bar.update()
        case Epoch(quality=quality):
            bar.set_postfix_str(_text("validation", quality))
            bar.update()
        case Ticket(step=step, steps=steps):
            bar.set_description_str(f"round {step} of {steps}")
        case Point(layer=layer, final=final):
            bar.unit = "cell"
            bar.set_description_str(layer)
            if final:
                bar.update()
        case Measured(stage=stage, measurement=m):
            bar.set_postfix_str(_text(f"{stage}, test", m.quality))
        case Finished(final=final):
            bar.set_description_str("finished")
            bar.set_postfix_str(_text("test", final.quality))
        case Halted(where=where):
            bar.set_description_str(f"stopped {where}")
        case Failed(kind=kind):
            bar.set_description_str(f"failed: {kind}")
        case _:
            pass


def _text(of: str, quality: Quality | None) -> str:
    """`test accuracy 98.1 %`; nothing where nothing is measured."""
    return "" if quality is None else f"{of} {quality.name} {quality.text}"
