"""Search for a recipe: Optuna proposes, the runs of a sweep answer, and the points arrive live.

The store is the truth: a trial is a run of its recipe, each once, ever, and Optuna's study (a file
of the workspace, which its own dashboard opens) holds what was proposed and what came of it. A
process that is killed loses nothing: the next one goes on with the trials that were open. No torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import DataError, RunError
from pruning.events import Measured
from pruning.recipe import Recipe
from pruning.runs.results import has_result, load_run
from pruning.runs.store import Job, Store
from pruning.sweeps import sweeps
from pruning.sweeps.goal import Goal, Outcome, mean_outcome, outcome
from pruning.sweeps.plan import DENSE, DENSE_LONGER, RANDOM_SEARCH, SEARCH, SEARCHED, Plan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

FILE = "searches.sqlite"
POPULATION = 12
"""Of NSGA-II: Optuna's fifty would make sixty trials one generation, and all of them random."""

TRIALS = 60

CANDIDATES = 10
"""Trials of a line that are run with further seeds, at most, until one keeps the limits."""

STATES = {"COMPLETE": "done", "FAIL": "failed", "RUNNING": "running", "WAITING": "queued"}
"""Optuna's word for a trial's state -> ours; it prunes none of these."""


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried. number: from 0 in its line; outcome: None while it is not done, and
    where it failed, for the reason `why`.
    """

    line: str
    number: int
    recipe: Recipe
    state: str
    outcome: Outcome | None
    why: str = ""


@dataclass
class Search:
    """A goal on its way. studies: line -> Optuna's study; sweep: the id of its runs."""

    store: Store
    goal: Goal
    sweep: str
    studies: dict[str, Study]

    @property
    def dashboard(self) -> str:
        """The command that opens Optuna's own dashboard on its studies."""
        return dashboard_command(self.store.workspace)


def dashboard_command(workspace: Path) -> str:
    return f"optuna-dashboard {_address(workspace)}"


def installed() -> bool:
    """Whether Optuna is, without importing it."""
    return importlib.util.find_spec("optuna") is not None


@dataclass(frozen=True)
class Answer:
    """What a line came to. mean: over its seeds, of validation data as everything here."""

    trial: Trial
    mean: Outcome
    seeds: int


def open_search(
    store: Store,
    goal: Goal,
    *,
    control: bool = True,
    visitor: str | None = None,
    label: str | None = None,
    sweep: str | None = None,
) -> Search:
    """Begin a search, or go on with the one of an equal goal. control: random search beside it.

    Its sweep begins with the dense model, the dense model trained as long, and the default
    technique at a few levels. sweep: the one that `begin` began for it, which nothing wakes here.
    Raises RecipeError for a model that this process must not run, RunError where Optuna is not
    installed.
    """
    optuna = _optuna()
    storage = optuna.storages.RDBStorage(
        _address(store.workspace), engine_kwargs={"connect_args": {"timeout": 30}}
    )
    studies = _studies(storage, goal, control)
    # Of somebody else's search of an equal goal: this one has studies of its own.
    if sweep is not None and _sweep_of(store, studies[SEARCH]) not in (None, sweep):
        studies = _studies(storage, goal, control, f"{sweep} ")
    plan = _plan(goal, studies)
    first = studies[SEARCH]
    id = _sweep_of(store, first) or sweep
    fresh = id is None
    if id is None:
        id = begin(store, goal, visitor, label)
    first.set_user_attr("sweep", id)
    first.set_user_attr("goal", goal.to_dict())
    if not fresh:
        # What was open when somebody cancelled it, or its process was killed, is tried again.
        halfway = [frozen for study in studies.values() for frozen in _open(study)]
        recipes = [frozen.user_attrs.get("recipe") for frozen in halfway]
        again = [Recipe.from_dict(recipe) for recipe in recipes if recipe]
        again = [_dense_recipe(plan), *again]
        sweeps.extend(store, id, plan, again=again, wake=sweep is None)
    return Search(store, goal, id, studies)


def begin(store: Store, goal: Goal, visitor: str | None = None, label: str | None = None) -> str:
    """Queue what a search begins with, before anything is proposed; its sweep's id. No Optuna.

    Raises RecipeError for a model that this process must not run.
    """
    words = label or f"Search: {goal.in_words()}"
    # Another search of the model may begin with an equal plan: each has a sweep of its own.
    return sweeps.submit(store, first_plan(goal), visitor, words, anew=True)


def first_plan(goal: Goal) -> Plan:
    """The default technique at a few levels, and its controls."""
    return _plan(goal, {})


def _studies(storage: Any, goal: Goal, control: bool, whose: str = "") -> dict[str, Study]:
    directions = ["minimize" if less else "maximize" for less in goal.minimised]
    return {
        line: _optuna().create_study(
            storage=storage,
            study_name=f"{goal.model} {goal.id} {whose}{line}",
            directions=directions,
            load_if_exists=True,
        )
        for line in SEARCHED[: 2 if control else 1]
    }


def advance(search: Search, trials: int, ahead: int = 1) -> bool:
    """Take in what has ended and propose what is next; False once each line has so many trials, and
    its answer was run with the goal's further seeds.

    ahead: trials of each line that wait or work at a time. Raises DataError for a model without
    validation data, RunError where the dense model cannot be measured, or the sweep was paused or
    cancelled.
    """
    state = search.store.sweep(search.sweep).state
    if state != "active":
        raise RunError(f"The sweep of this search was {state} elsewhere: the same call continues.")
    for study in search.studies.values():
        _take_in(search, study)
    layers = _layers(search)
    if layers is None:
        return True
    more = proposed = False
    for study in search.studies.values():
        open_trials = len(_open(study))
        missing = trials - _count(study)
        while missing > 0 and open_trials < ahead:
            _propose(search, study, layers)
            open_trials, missing = open_trials + 1, missing - 1
            proposed = True
        more = more or open_trials > 0
    if proposed:
        _extend(search)
    return more or _confirm(search)


def _extend(search: Search) -> None:
    """Queue what was proposed. Where somebody paused it meanwhile, that waits: whoever opens the
    search again queues it.
    """
    sweeps.extend(search.store, search.sweep, _plan(search.goal, search.studies), wake=False)


def trials(search: Search) -> list[Trial]:
    """Every trial of both lines, in the order they were proposed."""
    made: list[Trial] = []
    for line, study in search.studies.items():
        for frozen in _proposed(study):
            known = frozen.user_attrs.get("outcome")
            made.append(
                Trial(
                    line,
                    frozen.number,
                    Recipe.from_dict(frozen.user_attrs["recipe"]),
                    STATES[frozen.state.name],
                    Outcome(**known) if known else None,
                    frozen.user_attrs.get("why", ""),
                )
            )
    return made


def best(goal: Goal, line: Sequence[Trial]) -> list[Trial]:
    """Of one line's trials: one, a front of several, or none that keeps the limits."""
    outcomes = {place: trial.outcome for place, trial in enumerate(line) if trial.outcome}
    return [line[place] for place in goal.best(outcomes)]


def answers(search: Search, line: str) -> list[Answer]:
    """What a line of the search came to: one, a front of several, or none that keeps the limits.

    Of trials by one seed, the first that keeps the limits by the mean over all of them.
    """
    own = [trial for trial in trials(search) if trial.line == line]
    if search.goal.find == "front" or not search.goal.confirm:
        chosen = best(search.goal, own)
        return [Answer(trial, trial.outcome, 1) for trial in chosen if trial.outcome]
    return [answer for answer in _candidates(search, line) if search.goal.allows(answer.mean)][:1]


def _candidates(search: Search, line: str) -> list[Answer]:
    """Trials that keep the limits by one seed and were run with all, the best first."""
    known = {trial.number: trial for trial in trials(search) if trial.line == line}
    outcomes = {number: trial.outcome for number, trial in known.items() if trial.outcome}
    asked = search.studies[line].user_attrs.get("candidates", [])
    made = []
    for number in search.goal.ranked(outcomes):
        if number not in asked:
            continue
        others = [_known(search, recipe) for recipe in _seeded(search.goal, known[number].recipe)]
        measured = [one for one in others if one is not None]
        if len(measured) == len(others):
            mean = mean_outcome([outcomes[number], *measured])
            made.append(Answer(known[number], mean, 1 + len(others)))
    return made


def _confirm(search: Search) -> bool:
    """Have the next candidate of each line run with further seeds; False once none is needed."""
    if search.goal.find == "front" or not search.goal.confirm:
        return False
    waits = False
    for line, study in search.studies.items():
        asked = list(study.user_attrs.get("candidates", []))
        by_number = {trial.number: trial for trial in trials(search) if trial.line == line}
        outcomes = {number: trial.outcome for number, trial in by_number.items() if trial.outcome}
        done = {answer.trial.number: answer for answer in _candidates(search, line)}
        recipes: set[str] = set()
        for number in search.goal.ranked(outcomes):
            recipe = by_number[number].recipe
            if recipe.id in recipes:  # proposed before
                continue
            if len(recipes) == CANDIDATES:
                break
            recipes.add(recipe.id)
            if number not in asked:
                study.set_user_attr("candidates", [*asked, number])
                _extend(search)
                waits = True
                break
            if number in done and search.goal.allows(done[number].mean):
                break
            if number not in done and any(
                _waits(search, other) for other in _seeded(search.goal, recipe)
            ):
                waits = True
                break
    return waits


def _seeded(goal: Goal, recipe: Recipe) -> list[Recipe]:
    return [replace(recipe, seed=goal.seed + further) for further in range(1, goal.confirm + 1)]


def _known(search: Search, recipe: Recipe) -> Outcome | None:
    job = _run_of(search.store, search.sweep, recipe.to_dict())
    if job is None or job.state != "finished" or not has_result(job.folder):
        return None
    return _outcome(search.store, job)


def _waits(search: Search, recipe: Recipe) -> bool:
    job = _run_of(search.store, search.sweep, recipe.to_dict())
    return job is not None and job.state in ("queued", "running")


def default(search: Search) -> list[Trial]:
    """The default technique at its levels, as if it were a line of the search."""
    made: list[Trial] = []
    for point in sweeps.plan_of(search.store, search.sweep).points():
        if point.control or point.technique in search.studies:
            continue
        known = _known(search, point.recipe)
        state = "running" if known is None else "done"
        made.append(Trial(point.technique, len(made), point.recipe, state, known))
    return made


# ---------------------------------------------------------------- trials and runs


def _propose(search: Search, study: Study, layers: Sequence[tuple[str, int]]) -> None:
    # The seed by the trial's number, so that a search that was interrupted proposes what it would
    # have proposed: one generator from the start would repeat its first trials.
    number = len(study.get_trials(deepcopy=False))
    study.sampler = _sampler(search.goal, study, number)
    trial = study.ask()
    recipe = search.goal.propose(layers, trial)
    trial.set_user_attr("recipe", recipe.to_dict())


def _take_in(search: Search, study: Study) -> None:
    """Tell the study what came of the trials whose runs have ended."""
    optuna = _optuna()
    fail = optuna.trial.TrialState.FAIL
    for frozen in _open(study):
        recipe = frozen.user_attrs.get("recipe")
        if recipe is None:  # its process ended in the middle of proposing it
            study.tell(frozen.number, state=fail, skip_if_finished=True)
            continue
        job = _run_of(search.store, search.sweep, recipe)
        if job is None or job.state in ("queued", "running"):
            continue
        # As the study's own: the trial may have been proposed by a process that has ended.
        trial = optuna.trial.Trial(study, frozen._trial_id)
        if job.state != "finished" or not has_result(job.folder):
            trial.set_user_attr("why", job.message or f"The run was {job.state}.")
            study.tell(frozen.number, state=fail, skip_if_finished=True)
            continue
        try:
            made = _outcome(search.store, job)
            values, excess = search.goal.objectives(made), search.goal.excess(made)
        except DataError as error:
            trial.set_user_attr("why", str(error))
            study.tell(frozen.number, state=fail, skip_if_finished=True)
            continue
        trial.set_user_attr("run", job.id)
        trial.set_user_attr("outcome", asdict(made))
        for limit, by in excess.items():
            trial.set_constraint(limit, by)
        study.tell(frozen.number, list(values), skip_if_finished=True)


def _run_of(store: Store, sweep: str, recipe: dict[str, Any]) -> Job | None:
    jobs = store.jobs_of("run", recipe)
    return next((job for job in jobs if sweep in store.sweeps_of_run(job.id)), None)


def run_id(search: Search, recipe: Recipe) -> str | None:
    """The run of a recipe of the search; None where it was deleted."""
    job = _run_of(search.store, search.sweep, recipe.to_dict())
    return job.id if job else None


def _outcome(store: Store, job: Job) -> Outcome:
    stages = [event for _, event in store.events(job.id) if isinstance(event, Measured)]
    return outcome(load_run(job.folder).finished, stages)


def _layers(search: Search) -> list[tuple[str, int]] | None:
    """(name, weights) of what can be pruned; None while the dense model is not measured yet.

    Raises RunError where it could not be, DataError where it was measured on no validation data.
    """
    recipe = _dense_recipe(sweeps.plan_of(search.store, search.sweep))
    job = _run_of(search.store, search.sweep, recipe.to_dict())
    if job is None or job.state in ("failed", "stopped", "diverged"):
        why = job.message if job and job.message else "its run was deleted."
        raise RunError(f"The dense model could not be measured: {why}")
    if job.state != "finished":
        return None
    _outcome(search.store, job)  # asked before sixty runs are done in vain
    measured = load_run(job.folder).finished.dense
    return [(layer.name, layer.total) for layer in measured.layers]


def _dense_recipe(plan: Plan) -> Recipe:
    return next(point.recipe for point in plan.points() if point.control == DENSE)


def _plan(goal: Goal, studies: dict[str, Study]) -> Plan:
    """The default technique at a few levels, its controls, and every recipe that was proposed."""
    by_line = {line: _proposed(study) for line, study in studies.items()}
    singles = [
        {"name": line, **_of_single(frozen.user_attrs["recipe"])}
        for line, proposed in by_line.items()
        for frozen in proposed
    ]
    for line, study in studies.items():
        asked = study.user_attrs.get("candidates", [])
        for frozen in by_line[line]:
            if frozen.number in asked:
                recipe = Recipe.from_dict(frozen.user_attrs["recipe"])
                further = _seeded(goal, recipe)
                singles += [{"name": line, **_of_single(each.to_dict())} for each in further]
    return Plan(
        models=(goal.model,),
        seeds=(goal.seed,),
        controls=(DENSE, DENSE_LONGER),
        singles=tuple(singles),
        fields={**goal.fields, "epochs": goal.epochs},
    )


def _of_single(recipe: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name not in ("version", "model")}


def _sweep_of(store: Store, study: Study) -> str | None:
    """The sweep that this search began; None where there is none, or it was deleted."""
    id = study.user_attrs.get("sweep")
    if id is None:
        return None
    try:
        return store.sweep(id).id
    except RunError:
        return None


# ---------------------------------------------------------------- Optuna


def _optuna() -> Any:
    """The package, which only a search needs. Raises RunError with the way to install it."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise RunError(
            "A search needs Optuna, which is not installed here: `pip install optuna`, then start "
            "again."
        ) from None
    # It would say every trial on stderr, between the lines of progress.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _address(workspace: Path) -> str:
    return f"sqlite:///{workspace / FILE}"


def _sampler(goal: Goal, study: Study, number: int) -> BaseSampler:
    samplers = _optuna().samplers
    # Sixteen bits for the number: more trials than a plan has points.
    seed = (goal.seed * 65_536 + number) % 2**32
    if study.study_name.endswith(RANDOM_SEARCH):
        made = samplers.RandomSampler(seed=seed)
    elif goal.find == "front":
        made = samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    else:
        made = samplers.TPESampler(seed=seed)
    sampler: BaseSampler = made
    return sampler


def _proposed(study: Study) -> list[FrozenTrial]:
    """Trials with a recipe; one whose process ended before it had any counts as none."""
    return [each for each in study.get_trials(deepcopy=False) if "recipe" in each.user_attrs]


def _open(study: Study) -> list[FrozenTrial]:
    running = (_optuna().trial.TrialState.RUNNING,)
    waiting: list[FrozenTrial] = study.get_trials(deepcopy=False, states=running)
    return waiting


def _count(study: Study) -> int:
    return len(_proposed(study))
