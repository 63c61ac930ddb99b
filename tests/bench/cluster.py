"""What a run costs more on a cluster: a sweep by two workers of this machine, and two of Dask's.

6 techniques × 5 levels × 3 seeds on digits-cnn, one epoch each; the scheduler and its workers are
on loopback. Every run is compared with its counterpart. `python3 run.py bench cluster`
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench._table import conditions
from faults.clusters import on_a_cluster
from faults.stage import Stage, check, stage, until

from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.results import load_run
from pruning.runs.store import Job
from pruning.sweeps import sweeps
from pruning.sweeps.plan import Plan

RESULT = Path(__file__).parent / "results" / "cluster.md"
PLAN = Plan(
    models=("digits-cnn",),
    criteria=("magnitude", "taylor", "fisher", "wanda", "snip", "random"),
    sparsities=(0.5, 0.7, 0.8, 0.9, 0.95),
    seeds=(0, 1, 2),
    controls=(),
    fields={"epochs": 1},
)
WORKERS = 2
SWEEP, MACHINES, MINUTE = 1_000, (2, 10, 20, 50), 60.0
"""What is planned on paper: so many runs of a minute, on so many workers."""

HEAD = """# Runs on a cluster

{runs} runs of a sweep (digits-cnn, {techniques} techniques × {levels} levels, {seeds} of 3
seeds, one epoch each), by {workers} workers of this machine, and by {workers} Dask workers on it.
{conditions}

*Overhead*: time of the workers that no run of theirs accounts for, by run: (workers × wall time −
seconds that the runs say they took) / runs. It is waiting, not work: a worker asks, is given the
run, and its files come back. Weights, masks, events and every figure but times were equal in all
{runs} pairs.

| | wall time, s | a run, s (median) | overhead a run, s |
|---|---|---|---|
{rows}

So {more:+.2f} s a run on a cluster.

## A sweep of {sweep:,} runs, on paper

Runs of one minute, and the overhead above, which workers wait out side by side. What the pool does
itself for a run (it writes what comes back) took {written:.3f} s of its processor: that alone
is done for one run after another, and would hold {most:,.0f} workers at work.

| workers | hours without overhead | with it | share lost |
|---|---|---|---|
{paper}
"""


@dataclass(frozen=True)
class Timed:
    """wall: seconds; each: that the runs took themselves; pool: seconds of its processor."""

    jobs: dict[str, Job]
    wall: float
    each: list[float]
    pool: float

    @property
    def overhead(self) -> float:
        return (WORKERS * self.wall - sum(self.each)) / len(self.each)


def swept(here: Stage, plan: Plan) -> Timed:
    """The plan's sweep, once every worker is warm."""
    # A pool starts further workers as runs wait.
    warm = [here.submit(Recipe(model=plan.models[0], epochs=1, seed=90 + n)) for n in range(4)]
    for id in warm:
        here.ended(id)
    leader = pool.pid(here.home)
    assert leader
    before, began = processor(leader), time.monotonic()
    id = sweeps.submit(here.store, plan)
    until(lambda: sweeps.state(here.store, id, WORKERS).ended, "its end", 3600)
    wall = time.monotonic() - began
    jobs = {json.dumps(job.spec, sort_keys=True): job for job in here.store.runs_of_sweep(id)}
    each = [load_run(job.folder).finished.seconds for job in jobs.values()]
    return Timed(jobs, wall, each, processor(leader) - before)


def processor(number: int) -> float:
    """Seconds that a process has worked."""
    fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(one: Timed, other: Timed) -> None:
    """Every run of the one has an equal in the other."""
    check(one.jobs.keys() == other.jobs.keys(), "the same runs")
    for spec, job in one.jobs.items():
        pair = (job, other.jobs[spec])
        check([each.state for each in pair] == ["finished"] * 2, f"states of {spec}")
        check([each.attempt for each in pair] == [1, 1], f"attempts of {spec}")
        for name in ("final.safetensors", "answers.npz"):
            contents = [(each.folder / name).read_bytes() for each in pair]
            check(contents[0] == contents[1], f"{name} of {spec} differs")
        masks = [load_run(each.folder).packed_masks() for each in pair]
        check(masks[0].keys() == masks[1].keys(), f"masks of {spec}")
        same = all((masks[0][name].bits == masks[1][name].bits).all() for name in masks[0])
        check(same, f"masks of {spec} differ")
        results = [load_run(each.folder).finished for each in pair]
        check(results[0].final.accuracy == results[1].final.accuracy, f"accuracy of {spec}")


def paper(overhead: float) -> list[str]:
    rows = []
    for workers in MACHINES:
        plain = SWEEP * MINUTE / workers / 3600
        loaded = SWEEP * (MINUTE + overhead) / workers / 3600
        rows.append(f"| {workers} | {plain:.2f} | {loaded:.2f} | {1 - plain / loaded:.1%} |")
    return rows


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(PLAN.seeds), help="fewer, for a try")
    options = parser.parse_args(arguments)
    plan = Plan.from_dict({**PLAN.to_dict(), "seeds": list(range(options.seeds))})
    when = conditions()
    with tempfile.TemporaryDirectory() as folder:
        # One after the other, and neither's workers rest beside the other's.
        with stage(Path(folder) / "local", PRUNING_ENGINE="") as here:
            here.open_server()
            local = swept(here, plan)
        with on_a_cluster(WORKERS) as (elsewhere, _):
            cluster = swept(elsewhere, plan)
            compare(local, cluster)
    rows = {"this machine's workers": local, "Dask's workers": cluster}
    more = cluster.overhead - local.overhead
    written = cluster.pool / len(cluster.each)
    text = HEAD.format(
        runs=len(plan.points()),
        techniques=len(plan.criteria),
        levels=len(plan.sparsities),
        seeds=len(plan.seeds),
        workers=WORKERS,
        conditions=when,
        rows="\n".join(
            f"| {name} | {timed.wall:.0f} | {median(timed.each):.2f} | {timed.overhead:.2f} |"
            for name, timed in rows.items()
        ),
        more=more,
        sweep=SWEEP,
        written=written,
        most=MINUTE / max(written, 1e-6),
        paper="\n".join(paper(cluster.overhead)),
    )
    print(text)
    RESULT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
