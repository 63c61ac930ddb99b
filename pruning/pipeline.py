"""Recipe + workpiece -> events. The only file that knows the order: score, select, remove,
fine-tune, measure.
"""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapted import unadapted
from pruning.allocation.schedules import grow
from pruning.coverage import notes, plain_copy
from pruning.devices import CPU, device_of, on_cpu, title
from pruning.errors import NotCaptured, Stopped
from pruning.events import (
    Certificate,
    Epoch,
    Event,
    Finished,
    Halted,
    Halting,
    Measured,
    Measurement,
    Notice,
    Pruned,
    Recalibrated,
    Reconstructed,
    Started,
    Ticket,
)
from pruning.masks import apply, by_layer, dense, intersect, overlap_of, sparsity
from pruning.measurement import (
    Quality,
    Snapshot,
    answered,
    beside_dense,
    count_uses,
    evaluate,
    finalize,
    logits,
    remembered_outputs,
    take_snapshot,
)
from pruning.prepare import prepared, try_out
from pruning.recipe import Recipe
from pruning.selection import Selection, listed, rank_with_path, remove, select, tie_warning
from pruning.sensitivity_map.forecast import achieved, forecast
from pruning.training.checkpoint import Checkpoint, Measurements, Reached, Save, Training
from pruning.training.compact import CompactResult, final_compact, finetune_compact, notices
from pruning.training.controls import control, reinitialised
from pruning.training.distill import teacher_logits
from pruning.training.finetune import Stop, finetune
from pruning.training.recalibrate import norms, recalibrate
from pruning.training.reconstruct import reconstruct
from pruning.training.rewind import State, epochs_of_run, first_step, put_back, state_of
from pruning.types import Masks, Workpiece, named_weights, unwrapped
from pruning.units.layout import Units, lay_out

Keep = Callable[[nn.Module, Masks], None]
KeepCompact = Callable[[nn.Module, Certificate], None]
KeepAnswers = Callable[[Snapshot, Snapshot], None]

WHAT = {"weights": "weights", "units": "units", "macs": "MACs", "bytes": "bytes"}
"""Budget -> what it counts, in words."""


@dataclass
class _State:
    """A run on its way. original: the dense model, left as it is; work: the copy that is pruned;
    masks: what is kept by now.

    resume: where an earlier attempt at this run got to; save: told where this one gets to; began:
    perf_counter's seconds, as if all was one attempt.
    units, covered: known once the dense model is measured; dense: it, before anything was pruned;
    measured: on the way; reached: None before the first whole epoch; outputs: of the last ticket
    for all test examples, (n, classes).
    Of a lottery: before: masks of the round before; rewound: the state to rewind to.
    """

    recipe: Recipe
    original: Workpiece
    work: Workpiece
    masks: Masks
    teacher: Tensor | None
    stop: Stop | None
    cache: Path | None
    save: Save | None
    resume: Checkpoint | None
    began: float
    units: Units = field(init=False)
    covered: set[str] = field(init=False)
    dense: Snapshot | None = None
    measured: Measurements = field(default_factory=Measurements)
    reached: Reached | None = None
    outputs: Tensor | None = None
    ties_noticed: bool = False
    before: Masks = field(default_factory=dict)
    rewound: State = field(default_factory=dict)

    @property
    def compact(self) -> bool:
        """Whether what is pruned can be left out of the model."""
        return self.recipe.dependency_groups and self.units.why_by_layer is None

    def training(self, step: int, networks: int = 0) -> dict[str, Any]:
        """What every training under these masks is given.

        networks: that were trained in this step before, of a lottery.
        """
        at, self.resume = self.resume, None  # of the first training alone
        return {
            "stop": self.stop,
            "teacher": self.teacher,
            "save": partial(_save, self, step, networks) if self.save else None,
            "resume": at.training if at else None,
        }


def run(
    recipe: Recipe,
    work: Workpiece,
    *,
    stop: Stop | None = None,
    keep: Keep | None = None,
    keep_compact: KeepCompact | None = None,
    keep_answers: KeepAnswers | None = None,
    cache: Path | None = None,
    save: Save | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[Event]:
    """Prune and fine-tune a copy of `work.model`, step by step; an event for each thing that
    happens, the last one Finished.

    stop: asked often; when true, the last event is Halted, with the model of the last whole epoch
        (step, where none is trained); before the first such epoch Stopped is raised.
    keep: given the final model and its masks before the last measurement, both on the CPU.
    keep_compact: then given the compact model and its certificate, where whole channels or heads
        were pruned.
    keep_answers: then given the dense model's and the result's outputs for the test examples.
    cache: a folder for what later runs need again: measured allocation paths (scope
        by_sensitivity), and the dense model's outputs.
    save: given a checkpoint after each whole epoch and each step's pruning, once its events were
        taken.
    resume: a checkpoint of an earlier attempt at the same run: events are those that come after it.
    Computed where the model lies (`pruning.on_device` moves it). The caller's model stays
    bit-identical; the same recipe, machine, device and thread count give the same numbers (times
    aside).

    Raises RecipeError, ModelError, DataError or RunError, each with the way out.
    """
    start = time.perf_counter() - (resume.seconds if resume else 0.0)
    # Counted before anything is loaded or trained: a rewind step past the end is refused here.
    there = device_of(unwrapped(work.model))
    if resume is None:
        yield Started(recipe.to_dict(), machine(there), epochs_of_run(recipe, work))
    # Before all else: what wraps or computes the weights comes off, so that dense and pruned are of
    # a kind, and one pass with loss and metric says what could not work at the end.
    task = prepared(work)
    work = task.work
    if resume is None:
        for note in (*task.notes, *notes(work.model), *try_out(work)):
            yield Notice(note)
    # The teacher is the dense model as handed in, so its logits are computed once and kept.
    teacher = None
    if recipe.distill and recipe.epochs:
        teacher = teacher_logits(work.reference.model, work.need("train", "Distillation"))
    if recipe.start == "trained":
        model, _ = plain_copy(work.model)
    else:
        model = reinitialised(work.model, recipe.seed)
    copied = replace(work, model=model)
    # Masks only ever intersect, so they start by keeping everything that was not pruned before.
    pruned_before = {name: keep.cpu() for name, keep in (work.masks or {}).items()}
    masks = intersect(dense(model), pruned_before)
    if work.masks:
        apply(masks, model)  # weights from scratch are random where they were pruned, too
    state = _State(recipe, work.reference, copied, masks, teacher, stop, cache, save, resume, start)
    # Two orders of the same pieces: fine-tune what was pruned, or rewind and train again.
    order = _prune_and_finetune if recipe.rewind == "none" else _lottery
    try:
        yield from _remembering(state, order(state))
        _raise_if_stopped(stop, "before the last measurement")
    except Stopped:
        if state.reached is None:
            raise
        yield from _halt(state, state.reached, keep, keep_answers)
        return
    # Saved before the last measurement: timing takes seconds, and a kill must not lose the model.
    if keep is not None:
        keep(on_cpu(unadapted(model)), state.masks)
    result = CompactResult()
    if (recipe.prunes or work.masks) and state.compact:
        result = final_compact(copied, state.masks)
    if result.notice is not None:
        yield result.notice
    if keep_compact is not None and result.snapshot and result.certificate:
        keep_compact(on_cpu(unadapted(result.snapshot.work.model)), result.certificate)
    # All are timed in the same rounds: latencies compare only on the same machine at the same time.
    assert state.dense is not None
    snapshots = [state.dense, take_snapshot(copied, outputs=state.outputs)]
    if result.snapshot is not None:
        snapshots.append(result.snapshot)
    if keep_answers is not None:
        keep_answers(state.dense, snapshots[-1])
    dense_end, final, *compact_end = finalize(snapshots)
    yield _measured("final", copied, final, known=_known_validation(state))
    yield Finished(
        sparsity=sparsity(state.masks, state.covered),
        dense=dense_end,
        pruned=state.measured.pruned,
        final=final,
        seconds=time.perf_counter() - start,
        recalibrated=state.measured.recalibrated,
        reconstructed=state.measured.reconstructed,
        compact=compact_end[0] if compact_end else None,
        certificate=result.certificate,
    )


def _remembering(state: _State, events: Iterator[Event]) -> Iterator[Event]:
    """The events; after each whole epoch (step, where none is trained) the weights are remembered.

    Remembered before the event is handed on: whoever has seen it may count on it.
    """
    trains = state.recipe.epochs > 0
    for event in events:
        done = state.reached.done if state.reached else 0
        match event:
            case Epoch(branch=""):  # a control's epochs are no part of the pruned network
                known = None
                if event.loss is not None:
                    known = Quality(event.accuracy, event.loss, event.score)
                _remember(state, event.step, event.epoch, event.sparsity, done + 1, known)
            case Pruned() if not trains:
                _remember(state, event.step, 0, event.sparsity, done + 1)
            # The same step, repaired.
            case Recalibrated() | Reconstructed() if not trains and state.reached:
                _remember(state, event.step, 0, state.reached.sparsity, done)
        yield event


def _remember(
    state: _State,
    step: int,
    epoch: int,
    sparsity: float,
    done: int,
    validation: Quality | None = None,
) -> None:
    state.reached = Reached(
        weights=state_of(state.work.model),
        masks=state.masks,
        sparsity=sparsity,
        step=step,
        epoch=epoch,
        done=done,
        measured=state.measured,
        validation=validation,
    )


def _save(state: _State, step: int, networks: int = 0, training: Training | None = None) -> None:
    """Hand on where the run can go on from now.

    training: that it is in the middle of, None where that has not begun.
    """
    if state.save is None:
        return
    # Until the dense network has been trained there is nothing else to come back to.
    dense = state.dense.work.model if state.dense and state.rewound else None
    state.save(
        Checkpoint(
            step=step,
            weights=state.work.model.state_dict(),
            masks=state.masks,
            reached=state.reached,
            measured=state.measured,
            seconds=time.perf_counter() - state.began,
            training=training,
            networks=networks,
            ties_noticed=state.ties_noticed,
            before=state.before,
            rewound=state.rewound,
            dense=dense.state_dict() if dense is not None else {},
        )
    )


def _go_on(state: _State) -> int:
    """Put back what a checkpoint holds; the last step that is pruned, 0 where there is none."""
    at = state.resume
    if at is None:
        return 0
    # Under its masks already, and to the bit: a mask applied again would change signs of zeros.
    state.work.model.load_state_dict(at.weights)
    state.masks = at.masks
    state.measured = at.measured
    state.reached = at.reached
    state.ties_noticed = at.ties_noticed
    state.before = at.before
    return at.step


def _halt(
    state: _State, reached: Reached, keep: Keep | None, keep_answers: KeepAnswers | None
) -> Iterator[Event]:
    """The end of a run that was stopped: the last whole epoch again, kept and measured.

    Nothing is timed, and no compact model is made: somebody waits for the Stop.
    """
    work = state.work
    put_back(reached.weights, reached.masks, work.model)
    # Saved first, as at the end of a whole run.
    if keep is not None:
        keep(on_cpu(unadapted(work.model)), reached.masks)
    planned = state.recipe.steps
    if state.recipe.epochs:
        planned = epochs_of_run(replace(state.recipe, controls=()), state.original)
    yield Halting(reached.step, reached.epoch, reached.done, planned)
    snapshot = take_snapshot(work)
    # The first training of a lottery makes the dense network: until it ends, it is what there is.
    dense = state.dense or snapshot
    if keep_answers is not None:
        keep_answers(dense, snapshot)
    final = beside_dense(snapshot, dense)
    # The epoch has been measured on validation data: another pass would only be waited for.
    yield _measured("final", work, final, known=reached.validation)
    yield Halted(
        reached.step,
        reached.epoch,
        done=reached.done,
        planned=planned,
        result=Finished(
            sparsity=reached.sparsity,
            dense=dense.measurement,
            pruned=reached.measured.pruned,
            final=final,
            seconds=time.perf_counter() - state.began,
            recalibrated=reached.measured.recalibrated,
            reconstructed=reached.measured.reconstructed,
        ),
    )


def _prune_and_finetune(state: _State) -> Iterator[Event]:
    """Step by step: score, remove, recalibrate or reconstruct, fine-tune.

    Before all that comes the training of network slimming, where it is asked for.
    """
    recipe, work = state.recipe, state.work
    folder = state.cache / "outputs" if state.cache else None
    state.dense = take_snapshot(state.original, folder=folder)
    if state.resume is None:
        known = None
        if state.original.validation is not None:
            validation = state.original.validation
            outputs, _ = remembered_outputs(state.original.model, validation, folder)
            known = answered(outputs, validation, state.original.loss, state.original.metric)
        took = state.dense.seconds
        yield _measured("dense", state.original, state.dense.measurement, seconds=took, known=known)
    # Laid out after the first event: what cannot be pruned is said beside the dense figures.
    _lay_out(state)
    if state.resume is None:
        yield from _without_use(recipe, work)
        yield from _skipped(recipe, state)
        yield from notices(recipe, state.units.why_by_layer)
    train: Callable[..., Iterator[Event]] = finetune
    if recipe.finetune_compact and state.compact:
        train = finetune_compact
    # What reconstruction aims at: the network as it was last trained, in this run or before it.
    trained = copy.deepcopy(work.model) if recipe.reconstruct else None
    done = _go_on(state)
    if recipe.trains_first and done == 0:
        training = state.training(0)
        yield from finetune(work, state.masks, recipe, covered=state.covered, step=0, **training)
        trained = copy.deepcopy(work.model) if recipe.reconstruct else None
    for step in range(max(1, done), recipe.steps + 1):
        last = step == recipe.steps
        if step > done:
            yield from _prune_and_repair(state, trained, step, last=last)
            _save(state, step)
        if recipe.epochs:
            training = state.training(step)
            yield from train(
                work, state.masks, recipe, covered=state.covered, step=step, **training
            )
            if recipe.reconstruct and not last:
                trained = copy.deepcopy(work.model)


def _prune_and_repair(
    state: _State, trained: nn.Module | None, step: int, *, last: bool
) -> Iterator[Event]:
    """One step before its fine-tuning. trained: what reconstruction aims at, None without it."""
    recipe, work = state.recipe, state.work
    recalibrates = recipe.recalibrate and bool(norms(work.model))
    # What pruning did is worth a measurement only where something repairs it afterwards.
    repaired = bool(recipe.epochs or recalibrates or recipe.reconstruct)
    yield from _prune_step(state, step, measure=last and repaired)
    if trained is not None:
        yield from _reconstruct(state, trained, step, measure=last and recipe.epochs > 0)
    # Before fine-tuning: training from statistics of the dense network would start off wrong.
    if recalibrates:
        yield _recalibrate(recipe, work, step)
    if recalibrates and recipe.epochs and last:
        recalibrated = take_snapshot(work).measurement
        state.measured = replace(state.measured, recalibrated=recalibrated)
        yield _measured("recalibrated", work, recalibrated)


def _lottery(state: _State) -> Iterator[Event]:
    """Lottery tickets: train the dense network, then in rounds score, remove, rewind, train again.

    Controls are trained after each ticket, on copies: they leave the ticket, and the rounds to
    come, as they are. "dense" is measured of the network that was trained first; "pruned" of the
    last round's trained weights under their new mask, before they are rewound.
    """
    recipe, work, at = state.recipe, state.work, state.resume
    keeps_all = state.masks
    begin = first_step(recipe, work)
    # "init" rewinds to here: the weights before any training.
    rewound = state_of(work.model)
    if recipe.trains_first and (at is None or at.step == 0):
        _go_on(state)
        remember = begin if recipe.rewind == "early" else None
        # Nobody teaches the dense network: it is what would.
        training = {**state.training(0), "teacher": None}
        trained = finetune(work, keeps_all, recipe, step=0, remember=remember, **training)
        rewound = (yield from trained) or rewound
        at = None  # from here on all is as if it had never ended
    if at is not None:
        work.model.load_state_dict(at.dense)
        rewound = at.rewound
    elif recipe.rewind == "learning_rate":  # the weights stay: "put back" as they are now
        rewound = state_of(work.model)
    state.rewound = rewound
    # A copy: the snapshot is timed at the end, when `work.model` has long been pruned.
    state.dense = take_snapshot(replace(work, model=copy.deepcopy(work.model)))
    took = state.dense.seconds
    _lay_out(state)
    if at is None:
        known = _known_validation(state)
        yield _measured("dense", work, state.dense.measurement, seconds=took, known=known)
        yield _ticket("dense", state, work, keeps_all, 0)
        yield from _without_use(recipe, work)
        yield from _skipped(recipe, state)
    # What one shot of the trained dense network would keep, at each round's sparsity.
    at_once = None
    if recipe.prunes:
        at_once = rank_with_path(recipe, work, state.units, cache=state.cache)
    done = _go_on(state)
    # Networks of that round that were trained and measured by then.
    networks = at.networks if at else 0
    for step in range(max(1, done), recipe.steps + 1):
        if step > done:
            networks = 0
            state.before = state.masks
            yield from _prune_step(state, step, measure=step == recipe.steps)
            if recipe.rewind != "learning_rate":
                put_back(rewound, state.masks, work.model)
            _save(state, step)
        one_shot = keeps_all
        if at_once is not None:
            drops = at_once.ranking.drops(recipe, share=_share(recipe, step))
            one_shot = at_once.masks(drops, work.model)
        if networks == 0:
            training = {"covered": state.covered, **state.training(step)}
            yield from finetune(work, state.masks, recipe, step=step, begin=begin, **training)
            yield _ticket("ticket", state, work, state.masks, step, (state.before, one_shot))
        for number, kind in enumerate(recipe.controls, 1):
            if number < networks:
                continue
            other, masks = control(kind, recipe, work, rewound, state.masks, one_shot, step)
            # New weights have no training to resume: theirs starts at its beginning.
            first = 0 if kind == "reinit" else begin
            training = {"covered": state.covered, **state.training(step, number)}
            yield from finetune(
                other, masks, recipe, step=step, begin=first, branch=kind, **training
            )
            yield _ticket(kind, state, other, masks, step)


def _measured(
    stage: str,
    work: Workpiece,
    on_test: Measurement,
    *,
    seconds: float | None = None,
    known: Quality | None = None,
) -> Measured:
    """A stage on test data, and on the validation data that the epochs are measured on.

    seconds: that the former took; known: the latter, where it was measured of these weights before.
    """
    if work.validation is None:
        return Measured(stage, on_test, seconds=seconds)
    quality = known or evaluate(work.model, work.validation, work.loss, work.metric)
    accuracy, loss, score = quality
    return Measured(stage, on_test, accuracy, loss, seconds, score)


def _known_validation(state: _State) -> Quality | None:
    """Of the weights as they are, if an epoch has just ended; None: they are to be measured."""
    # Where the compact model was trained, it was measured too, and rounds otherwise than the masked
    # one that is kept.
    if state.reached is None or (state.recipe.finetune_compact and state.compact):
        return None
    return state.reached.validation


def _lay_out(state: _State) -> None:
    """Which weights go together, and which the recipe covers."""
    state.units = lay_out(state.recipe, state.work)
    state.covered = state.units.covered(state.recipe.exclude)


def _prune_step(state: _State, step: int, *, measure: bool) -> Iterator[Event]:
    """One step's pruning. measure: what it did, before anything repairs it."""
    recipe, work = state.recipe, state.work
    _raise_if_stopped(state.stop, f"before step {step}")
    selection = (yield from _prune(state, step)) if recipe.prunes else None
    # Without an example input nothing is known of MACs: layers then count weights alone.
    rows = count_uses(work.model, work.example).rows if work.example is not None else {}
    layers = by_layer(state.masks, rows, named_weights(work.model))
    pruned = Pruned(step, recipe.steps, sparsity(state.masks, state.covered), layers)
    if selection is not None:
        share = selection.ranking.share(recipe, selection.drops)
        units = selection.units(recipe)
        pruned = replace(pruned, budget=recipe.counted, share=share, units=units)
    yield pruned
    if selection is not None:
        predicted = forecast(recipe, selection.ranking, step, _share(recipe, step))
        if predicted is not None:
            yield achieved(predicted, work)
    if measure:
        yield from _target_notices(recipe, pruned, state.covered)
        measured = take_snapshot(work).measurement
        state.measured = replace(state.measured, pruned=measured)
        yield _measured("pruned", work, measured)


def _prune(state: _State, step: int) -> Generator[Notice, None, Selection]:
    """Select and remove, in place."""
    recipe, work = state.recipe, state.work
    # Scored anew in each step: what fine-tuning did to the weights changes which matter.
    share = _share(recipe, step)
    selection = select(recipe, work, state.units, state.masks, share, state.cache)
    state.masks = selection.masks
    tied = tie_warning(recipe, selection, work)
    if tied and not state.ties_noticed:  # once: later steps mostly repeat it
        state.ties_noticed = True
        yield Notice(tied)
    remove(recipe, work, selection.masks)
    return selection


def _share(recipe: Recipe, step: int) -> float:
    """Of the final sparsity, after this step."""
    # A geometric schedule needs to know where it ends: for ratios by layer, at the largest.
    final = recipe.sparsity
    if recipe.scope == "manual":
        final = max(recipe.ratios.values(), default=0.0)
    return grow(recipe.schedule, step / recipe.steps, final, recipe.schedule_options)


def _recalibrate(recipe: Recipe, work: Workpiece, step: int) -> Recalibrated:
    """BatchNorm's statistics after this pruning, of the network as it is now."""
    data = work.need("train", "Recalibrating BatchNorm")
    start = time.perf_counter()
    layers = recalibrate(work.model, data, seed=recipe.seed, batch=max(recipe.batch, data.batch))
    return Recalibrated(step, layers, data.examples, time.perf_counter() - start)


def _reconstruct(state: _State, trained: nn.Module, step: int, *, measure: bool) -> Iterator[Event]:
    """Every layer solved anew towards the outputs of `trained`."""
    recipe, work = state.recipe, state.work
    data = work.need("train", "Reconstruction")
    start = time.perf_counter()
    try:
        done = reconstruct(
            work.model,
            trained,
            state.masks,
            data,
            work.example,
            seed=recipe.seed,
            stop=state.stop,
        )
    except NotCaptured as error:
        yield Notice(f"Nothing was reconstructed: {error}")
        return
    seconds = time.perf_counter() - start
    left = tuple(sorted(done.left))
    yield Reconstructed(step, len(done.layers), done.examples, seconds, left)
    if left and step == 1:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(done.left.items())[:3])
        yield Notice(f"Not reconstructed, as found: {listed(left)} ({reasons})")
    if measure:
        measured = take_snapshot(work).measurement
        state.measured = replace(state.measured, reconstructed=measured)
        yield _measured("reconstructed", work, measured)


def _ticket(
    kind: str,
    state: _State,
    work: Workpiece,
    masks: Masks,
    step: int,
    compared: tuple[Masks, Masks] | None = None,
) -> Ticket:
    """A network that was trained to its end, on test data.

    compared: the masks of the round before and of one shot, for their overlap with these.
    """
    accuracy = loss = score = None
    if kind == "dense" and state.dense is not None:  # measured just now
        dense = state.dense.measurement
        accuracy, loss, score = dense.accuracy, dense.loss, dense.score
    elif work.test:
        outputs = logits(work.model, work.test)
        accuracy, loss, score = answered(outputs, work.test, work.loss, work.metric)
        if kind == "ticket":  # what the run ends with, if no round follows
            state.outputs = outputs
    kept = sum(int(masks[name].sum()) for name in state.covered)
    before, one_shot = compared or (None, None)
    earlier = None if before is None else overlap_of(masks, before, state.covered)
    at_once = None if one_shot is None else overlap_of(masks, one_shot, state.covered)
    return Ticket(
        step=step,
        steps=state.recipe.steps,
        kind=kind,
        sparsity=sparsity(masks, state.covered),
        kept=kept,
        accuracy=accuracy,
        loss=loss,
        overlap=None if earlier is None else earlier.value,
        shared=None if at_once is None else at_once.value,
        shared_at_random=None if at_once is None else at_once.at_random,
        score=score,
    )


def _without_use(recipe: Recipe, work: Workpiece) -> Iterator[Notice]:
    """What the recipe asks for and this run has no use for."""
    has_norms = bool(norms(work.model))
    no_norms = f"{work.name} has no BatchNorm with running statistics"
    if recipe.recalibrate and recipe.rewind != "none":
        yield Notice(
            "Nothing was recalibrated: after a rewind, training sets BatchNorm's statistics anyway."
        )
    elif recipe.reconstruct and recipe.rewind != "none":
        yield Notice("Nothing was reconstructed: a rewind puts the kept weights back.")
    elif recipe.recalibrate and not has_norms:
        yield Notice(f"Nothing was recalibrated: {no_norms}.")
    if recipe.slimming and not recipe.epochs:
        yield Notice("There was no network slimming: this recipe trains 0 epochs.")
    elif recipe.slimming and not has_norms:
        yield Notice(f"There was no network slimming: {no_norms}.")
    if recipe.distill and not recipe.epochs:
        yield Notice(
            "Nothing was distilled: the dense model teaches while the pruned one is fine-tuned, "
            "and this recipe fine-tunes for 0 epochs."
        )


def _skipped(recipe: Recipe, state: _State) -> Iterator[Notice]:
    """Layers that the criterion has nothing to say of: they count in no share that was asked."""
    by_reason: dict[str, list[str]] = {}
    for name, why in state.units.skipped.items():
        if name not in state.covered and name not in recipe.exclude:
            by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        yield Notice(f"{recipe.criterion} leaves {listed(names)} dense: {why}")


def _target_notices(recipe: Recipe, pruned: Pruned, covered: set[str]) -> Iterator[Notice]:
    """What people should know: a target out of reach, layers that all but vanished."""
    share = pruned.share if pruned.share is not None else 0.0
    counted = WHAT[recipe.counted]
    total = sum(layer.total for layer in pruned.layers if layer.name in covered)
    by_units = recipe.counted == "units"
    # One weight less than asked is rounding, or one unit in each layer; more people should be told.
    rounding = len(covered) / pruned.units[1] if by_units and pruned.units else 1 / total
    missed = recipe.budgeted and recipe.prunes and recipe.sparsity - share > rounding
    asked = f"{share:.1%} of the {counted} were pruned, not {recipe.sparsity:.1%}"
    if not recipe.budgeted and recipe.scope != "manual":
        yield Notice(
            f"{pruned.sparsity:.1%} of the weights were pruned: {recipe.scope} says which, and "
            "the recipe's sparsity is not used."
        )
    elif missed and recipe.granularity == "n_of_m":
        yield Notice(f"{asked}: of every group, n weights are kept whatever is asked.")
    elif missed and recipe.scope == "per_layer" and recipe.scope_options.get("output", 1.0) != 1.0:
        yield Notice(f"{asked}: the output layer is pruned more slowly.")
    elif missed and (by_units or recipe.granularity == "weight"):
        yield Notice(f"{asked}: every layer keeps at least {recipe.min_units:,}.")
    # Below 2 % a layer of usual width has inputs that no weight reads.
    thin = [
        layer
        for layer in pruned.layers
        if layer.name in covered and layer.kept < 0.02 * layer.total
    ]
    if thin:
        names = ", ".join(f"{layer.name} ({layer.kept:,} of {layer.total:,})" for layer in thin)
        yield Notice(
            f"Layers that keep less than 2 % of their weights may pass no signal: {names}."
        )


def _raise_if_stopped(stop: Stop | None, where: str) -> None:
    if stop is not None and stop():
        raise Stopped(f"Stopped {where}.")


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """What the numbers depend on beside the recipe: versions, threads, processor, device."""
    accelerator = {} if device.type == "cpu" else {"accelerator": title(device)}
    return {
        "device": str(device),
        **accelerator,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
