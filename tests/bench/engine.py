"""The engine against what people would use instead: the same answers, in which time and memory.

`python3 run.py bench engine` runs every case; as a script it also takes `--quick` (each case once
on a tiny model, for the assertions alone), `--rounds N` and words that a case's name must hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from bench import _cases
from bench._cases import Case, Growth
from bench._table import conditions

RESULTS = Path(__file__).parent / "results"
FILES = ("_cases_choose", "_cases_compact")


def modules() -> list[ModuleType]:
    """The files of cases that there are."""
    names = [f"bench.{name}" for name in FILES]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name)]


def all_cases() -> list[Case]:
    return [case for module in modules() for case in module.CASES]


def all_growth() -> list[Growth]:
    return [growth for module in modules() for growth in getattr(module, "GROWTH", ())]


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="a case's name must hold them all")
    parser.add_argument("--quick", action="store_true", help="the assertions alone")
    parser.add_argument("--rounds", type=int, default=_cases.ROUNDS)
    options = parser.parse_args(arguments)
    when = conditions()
    _cases.one_thread()
    cases = [case for case in all_cases() if all(word in case.name for word in options.words)]
    growths = [growth for growth in all_growth() if all(w in growth.name for w in options.words)]
    if options.quick:
        for case in cases:
            _cases.check(case)
            print(f"{case.name}: equal to {case.peer}")
        return 0
    rows, growth_rows, missed = [], [], 0
    print(_cases.HEAD, end="")
    for case in cases:
        timed = _cases.measure(case, options.rounds)
        rows.append(_cases.row(case, timed))
        missed |= statistics.median(timed.ratios) < case.gate
        print(rows[-1])
    print(f"\n{_cases.GROWTH_HEAD}", end="")
    for growth in growths:
        growth_rows.append(_cases.grow(growth))
        print(growth_rows[-1])
    # Part of the cases is for looking at; the file holds them all.
    if not options.words:
        text = page(when, rows, growth_rows)
        (RESULTS / "engine.md").write_text(text, encoding="utf-8")
    return int(missed)


def page(when: str, rows: Sequence[str], growth_rows: Sequence[str]) -> str:
    """The file of results."""
    return (
        f"# The engine, against what people would use instead\n\n{when} One thread, processor "
        "time, medians of alternating runs in one process. The ratio is theirs over ours of the "
        "same round: over 1 ours is faster. Both results are compared in every case before it is "
        "timed. Ours/ours is the same code twice a round, a control.\n\n"
        f"{_cases.HEAD}{chr(10).join(rows)}\n\n## Memory and growth\n\nFour sizes. A slope of 1 "
        f"grows in proportion to the weights.\n\n{_cases.GROWTH_HEAD}{chr(10).join(growth_rows)}\n"
    )


if __name__ == "__main__":
    # What cases keep on disk belongs to no workspace, and none of it is there at the start.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRUNING_HOME"] = folder
        sys.exit(main(sys.argv[1:]))
