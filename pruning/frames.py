"""Events as a DataFrame, a row for each event, and back; a model's weights as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pruning import events
from pruning.errors import DataError
from pruning.events import Event
from pruning.metrics import Accuracy

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from pruning.types import Masks

PLACES = ("output", "input", "row", "column")
"""Of a weight: the dimensions of its tensor."""

EXACT = {int: "Int64", bool: "boolean"}
"""Kinds of values -> pandas' columns that hold them beside missing ones."""


def frame(rows: Iterable[Any]) -> pd.DataFrame:
    """A row for each event of a run, a sensitivity map or a criterion check, or other record.

    Columns: "event", and the fields that any of the events has. What lies inside of a field has a
    dotted name (`measurement.size.sparse`); an accuracy is a share in [0, 1], with its counts and
    its 95 % interval beside it (`accuracy.correct`, `accuracy.low`). Lists stay lists. Missing: not
    measured, or no field of that event.
    """
    import pandas as pd

    cells = [dict(_cells(event)) for event in rows]
    kinds: dict[str, set[type]] = {}
    for row in cells:
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(type(value))
    # Whole numbers and yes or no stay what they are beside missing ones. No column without a value.
    exact = {
        name: EXACT[kind] for name, (kind, *more) in kinds.items() if kind in EXACT and not more
    }
    return pd.DataFrame(cells, columns=[*kinds]).astype(exact)


def _cells(event: Any) -> Iterator[tuple[str, Any]]:
    yield "event", type(event).__name__.lower()
    yield from _inside(event, "")


def _inside(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, plain value) for each field."""
    for field in dataclasses.fields(value):
        part, name = getattr(value, field.name), prefix + field.name
        if isinstance(part, Accuracy):
            yield name, part.value
            yield from ((f"{name}.low", part.interval[0]), (f"{name}.high", part.interval[1]))
        if dataclasses.is_dataclass(part):
            yield from _inside(part, f"{name}.")
        elif isinstance(part, tuple | list):
            # None instead of an empty list: nothing to see, and a column of them is left out.
            yield name, [_plain(each) for each in part] or None
        elif isinstance(part, dict) and part and all(isinstance(n, float) for n in part.values()):
            yield from ((f"{name}.{key}", number) for key, number in part.items())
        elif isinstance(part, dict):
            yield name, part or None
        else:
            yield name, part


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def weights(model: nn.Module, masks: Masks | None = None) -> pd.DataFrame:
    """A row for each weight that techniques may prune; of large models those are many.

    Columns: layer, output, input, row, column (its place, as far as the layer has one), weight, and
    with masks whether it is kept.
    """
    import numpy as np
    import pandas as pd

    from pruning.types import prunable

    parts = []
    for name, weight in prunable(model).items():
        values = weight.detach().cpu().float().numpy()
        # Kernels of one dimension have columns alone.
        places = ("output", "input", "column") if values.ndim == 3 else PLACES
        columns: dict[str, Any] = dict(zip(places, np.indices(values.shape), strict=False))
        columns = {place: at.ravel() for place, at in columns.items()} | {"weight": values.ravel()}
        if masks is not None:
            keep = masks.get(name)
            columns["kept"] = True if keep is None else keep.cpu().numpy().ravel()
        parts.append(pd.DataFrame({"layer": name, **columns}))
    made = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    values_of = [name for name in ("weight", "kept") if name in made]
    return made.reindex(columns=["layer", *PLACES, *values_of]).astype(
        dict.fromkeys(PLACES, "Int32")
    )


def events_in(table: pd.DataFrame) -> list[Event]:
    """The events that `frame` made a table of. Raises DataError for other tables."""
    if "event" not in table.columns:
        raise DataError(
            "This DataFrame holds no events: it needs the columns that pruning.frame(events) makes."
        )
    return [_event(row) for row in table.to_dict("records")]


def _event(row: dict[Any, Any]) -> Event:
    nested: dict[str, Any] = {}
    # Shorter names first, so that an accuracy's counts replace its share.
    for name in sorted(row, key=lambda name: str(name).count(".")):
        value = row[name]
        if not _is_missing(value):
            _put(nested, str(name).split("."), getattr(value, "tolist", lambda v=value: v)())
    kind = events.KINDS.get(nested.pop("event", ""))
    if kind is None:
        raise DataError(
            f"{row['event']!r} is no event: known are {', '.join(events.KINDS)} (in the column "
            "`event`)."
        )
    return events.build(kind, _complete(kind, nested))  # type: ignore[no-any-return]


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (not isinstance(value, list | tuple | dict) and value != value)
        or (type(value).__name__ == "NAType")
    )


def _put(nested: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = nested.get(part)
        if not isinstance(inner, dict):
            inner = nested[part] = {}
        nested = inner
    nested[path[-1]] = value


def _complete(kind: type, data: dict[str, Any], where: str = "") -> dict[str, Any]:
    """The fields of a dataclass from a row: None where the row has nothing and there is no default.

    Further columns (an interval, a run's name) are left out. where: what its columns begin with.
    Raises DataError for a value of another kind.
    """
    hints = events.hints(kind)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], where + field.name
        inner = events.dataclass_in(hint)
        value = data.get(field.name)
        if isinstance(value, dict) and inner is not None:
            made[field.name] = _complete(inner, value, f"{name}.")
        elif value is not None or not _has_default(field):
            # Empty lists have no column either.
            some = [] if value is None and get_origin(hint) is tuple else value
            if not _fits(hint, some):
                raise DataError(
                    f"The column `{name}` cannot hold {value!r} where it belongs to "
                    f"{kind.__name__}: pruning.frame(events) makes tables that can be drawn."
                )
            made[field.name] = some
    return made


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of the annotated kind, as far as a table can tell."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None:
        return NoneType in kinds
    if isinstance(value, list | tuple):
        return any(get_origin(each) is tuple for each in kinds)
    if isinstance(value, int):
        return bool({int, float, bool} & set(kinds))
    return any(isinstance(value, get_origin(each) or each) for each in kinds)
