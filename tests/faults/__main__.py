"""Every fault that the workbench must outlive, on real pools and workers.

    python3 run.py faults [PART OF A NAME ...] [--repeats 20] [--seed 0]

A line for each: what was seen, or what broke. Ends with 1 if anything did.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

from faults import clocks, clusters, disks, hostile, kills, mutations, stores, sweeps
from faults.disks import NotHere
from faults.stage import Broken

PARTS = (kills, clocks, disks, stores, hostile, mutations, sweeps, clusters)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py faults", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only faults whose name has one of these in it")
    repeats_help = "kills at a random moment, after the single ones (default: 3)"
    parser.add_argument("--repeats", type=int, default=3, help=repeats_help)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    args = parser.parse_args(argv)
    cases: dict[str, Callable[[], str]] = {}
    for part in PARTS:
        cases |= part.CASES
    name = f"{args.repeats} kills at random"
    cases[name] = partial(kills.random_kills, args.repeats, args.seed)
    wanted = [name for name in cases if not args.names or any(n in name for n in args.names)]
    results = {name: play(name, cases[name]) for name in wanted}
    broken = [name for name, held in results.items() if held is False]
    skipped = [name for name, held in results.items() if held is None]
    line = f"\n{len(results) - len(broken) - len(skipped)} of {len(results)} faults outlived"
    print(line + (f", {len(skipped)} not played here" if skipped else ""))
    for name in broken:
        print(f"broken: {name}")
    return 1 if broken else 0


def play(name: str, case: Callable[[], str]) -> bool | None:
    """Whether it holds; None where it cannot be played here."""
    began = time.monotonic()
    try:
        word, line = "holds", case()
    except NotHere as why:
        word, line = "not here", str(why)
    except Broken as broken:
        word, line = "BROKEN", str(broken)
    except Exception as error:
        traceback.print_exc()
        word, line = "BROKEN", repr(error)
    print(f"{word:9}{name:46}{time.monotonic() - began:6.0f} s  {line}", flush=True)
    return {"holds": True, "not here": None, "BROKEN": False}[word]


if __name__ == "__main__":
    sys.exit(main())
