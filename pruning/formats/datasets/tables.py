"""A CSV for tabular models: a row an example, a column predicted, the others its inputs.

Numbers stay numbers; a column of words becomes one input for each word. Empty cells take the
column's mean. Read by pandas, which knows what spreadsheets write.
"""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.datasets.writer import Writer, Written, capped, counted, finish, judge_classes

TARGETS = ("target", "label", "class", "y")
"""What a column of targets is called, where it is not the last."""

MOST_WORDS = 50  # different words of a column that become inputs
MOST_NUMBERS = 30  # different whole numbers of targets that still are classes
DELIMITERS = ",;\t|"
BEGIN = 64 << 10  # bytes that the delimiter and the header are told by


def read(file: BinaryIO, target: str, folder: Path, most: int) -> Written:
    """Read a table. target: the column that is predicted, "": by its name or the last.

    Raises FileRefused.
    """
    table = _table(file)
    notes: list[str] = []
    column = _target_column(table, target)
    wanted = table.pop(column)
    empty = wanted.isna()
    if empty.any():
        rows = counted(int(empty.sum()), "row")
        notes.append(f"Passed over, being without a target: {rows}.")
        table, wanted = table[~empty], wanted[~empty]
    inputs = _inputs(table, notes)
    classes, targets = _targets(wanted)
    names = ", ".join(capped(str(name), 30) for name in inputs.columns[:8])
    more = " …" if inputs.shape[1] > 8 else ""
    notes.insert(0, f"Predicted: {capped(str(column), 30)!r}. Inputs: {names}{more}.")
    writer = Writer(folder, (inputs.shape[1],), "float32", most)
    writer.write(inputs.to_numpy(np.float32))
    writer.close()
    finish(folder, targets, None)
    return Written("table", writer.shape, "float32", writer.examples, classes, notes)


def _table(file: BinaryIO) -> pd.DataFrame:
    file.seek(0)
    begin = file.read(BEGIN).decode("utf-8-sig", "replace")
    first = begin.splitlines()[0] if begin.splitlines() else ""
    delimiter = max(DELIMITERS, key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter), [])
    if len(cells) < 2:
        raise FileRefused(
            "has one column, and a table needs inputs and a target: separate its columns by commas."
        )
    if len(cells) > limits.COLUMNS:
        raise FileRefused(f"has {len(cells):,} columns, over the {limits.COLUMNS:,} that are read.")
    # A first row of numbers is an example, and columns then have numbers for names.
    header = None if all(_is_number(cell) for cell in cells) else 0
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                file,
                sep=delimiter,
                header=header,
                encoding="utf-8-sig",
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
            )
    # What is over would be dropped, and the last column is the target, mostly.
    except pd.errors.ParserWarning:
        raise FileRefused(
            f"has rows of more cells than the {len(cells):,} that its first row has: give every "
            "column a name, or put cells with commas into quotes."
        ) from None
    except UnicodeDecodeError:
        raise FileRefused("is not text in UTF-8: save it as CSV (UTF-8).") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, csv.Error) as error:
        why = capped(str(error).splitlines()[-1] if str(error) else type(error).__name__)
        raise FileRefused(f"is no table that can be read ({why}): save it as CSV.") from None
    if len(table) < 3:
        raise FileRefused(f"has {counted(len(table), 'row')} of examples: bring at least three.")
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _target_column(table: pd.DataFrame, target: str) -> Any:
    by_name = {str(name).strip().lower(): name for name in table.columns}
    if target:
        if target.strip().lower() not in by_name:
            known = ", ".join(capped(str(name), 30) for name in table.columns[:12])
            raise FileRefused(f"has no column {capped(target)!r}: its columns are {known}.")
        return by_name[target.strip().lower()]
    named = [by_name[name] for name in TARGETS if name in by_name]
    return named[0] if named else table.columns[-1]


def _inputs(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Numbers alone, finite. Raises FileRefused where nothing is usable."""
    columns: dict[str, Any] = {}
    dropped = []
    filled = 0
    for name in table.columns:
        values = table[name]
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.astype(np.float64).replace([np.inf, -np.inf], np.nan)
            filled += int(numbers.isna().sum())
            mean = numbers.mean()
            columns[str(name)] = numbers.fillna(0.0 if np.isnan(mean) else mean)
            continue
        words = values.astype(str).where(values.notna(), "")
        known = sorted(set(words))
        if len(known) > MOST_WORDS:
            dropped.append(capped(str(name), 30))
            continue
        for word in known:
            columns[f"{name}={word}"] = (words == word).astype(np.float64)
    if dropped:
        notes.append(
            f"Columns with more than {MOST_WORDS} different words are no inputs: "
            f"{', '.join(dropped[:8])}."
        )
    if filled:
        notes.append(f"Given their column's mean: {counted(filled, 'empty or infinite cell')}.")
    if not columns:
        raise FileRefused("has no column of numbers or few words beside its target: add some.")
    if len(columns) > limits.COLUMNS:
        raise FileRefused(
            f"becomes {len(columns):,} inputs, over the {limits.COLUMNS:,} that are read: "
            "leave out columns of words."
        )
    return pd.DataFrame(columns)


def _targets(wanted: pd.Series) -> tuple[list[str], NDArray[Any]]:
    """(names of classes, indices (n,)), or ([], values (n, 1) float32)."""
    if pd.api.types.is_bool_dtype(wanted) or not pd.api.types.is_numeric_dtype(wanted):
        return _classes(wanted.astype(str))
    values = wanted.to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise FileRefused("holds targets that are infinite: leave those rows out.")
    if np.abs(values).max(initial=0) > np.finfo(np.float32).max:
        raise FileRefused(
            f"holds targets over {np.finfo(np.float32).max:.0e}: divide them by a power of ten."
        )
    whole = bool((values == np.round(values)).all() and np.abs(values).max(initial=0) < 1 << 53)
    if whole and len(np.unique(values)) <= MOST_NUMBERS:
        return _classes(pd.Series(values.astype(np.int64)))
    return [], values.astype(np.float32)[:, None]


def _classes(wanted: pd.Series) -> tuple[list[str], NDArray[Any]]:
    known, index = np.unique(wanted.to_numpy(), return_inverse=True)
    names = [capped(str(name)) for name in known]
    targets = index.astype(np.int64)
    judge_classes(names, targets)
    return names, targets
