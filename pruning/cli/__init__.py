"""The workbench from a shell: `python -m pruning VERB`, one file for each verb; all take --json.

list: techniques, models and data sets; run: prune and fine-tune; sweep: many runs as a plan says;
search: the best recipe for a goal; advise: whether to prune at all; sensitivity: which layers can
be pruned; check: whether a criterion orders units by their loss change; measure: what a model
costs; inspect: what is in a weights file; data: what is in a data set; export: a result taken home.
"""

from __future__ import annotations

import argparse
import sys

from pruning.cli import (
    advise,
    criterion_check,
    data,
    export,
    inspect,
    list_,
    measure,
    run,
    search,
    sensitivity,
    sweep,
)
from pruning.errors import PruningError

VERBS = {
    "list": list_,
    "run": run,
    "sweep": sweep,
    "search": search,
    "advise": advise,
    "sensitivity": sensitivity,
    "check": criterion_check,
    "measure": measure,
    "inspect": inspect,
    "data": data,
    "export": export,
}
"""Each module has HELP, arguments(parser) and execute(args)."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns 0, or 2 after an error people can mend, in one sentence on stderr."""
    args = _parser().parse_args(argv)
    try:
        args.execute(args)
    except PruningError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    # `| head` closes the pipe: that is how people stop reading, and no error.
    except (BrokenPipeError, KeyboardInterrupt):
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pruning", description="See what a neural network can live without."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb in VERBS.items():
        about = (verb.execute.__doc__ or "").split("\n")[0]
        sub = verbs.add_parser(name, help=verb.HELP, description=about)
        sub.set_defaults(execute=verb.execute)
        sub.add_argument("--json", action="store_true", help="lines of JSON")
        verb.arguments(sub)
    return parser
