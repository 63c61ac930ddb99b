"""Criteria against what they estimate: autograd's exact Hessian, loops, laws of the papers."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import pruning
import sample_models
from pruning import registry, selection
from pruning.criteria import _obs_solver
from pruning.criteria.synflow import LAST, _kept_by_round, flows, positive
from pruning.evidence import Evidence, _mixed
from pruning.measurement import evaluate
from pruning.types import Batches, Workpiece, prunable
from tests.toys import toy


class Bent(nn.Module):
    """5 -> 4 -> 3 with tanh or ReLU and biases: 32 weights; autograd gives their exact Hessian."""

    def __init__(self, bend: nn.Module) -> None:
        super().__init__()
        self.one, self.bend, self.two = nn.Linear(5, 4), bend, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.bend(self.one(x)))
        return out


def bent(bend: nn.Module) -> Workpiece:
    work = toy("mlp", seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Bent(bend).eval().double()
    data = Batches(work.train.x.double(), work.train.y, batch=7)  # type: ignore[union-attr]
    return Workpiece("bent", model, data, data, data, example=data.x[:1])


def hessian(work: Workpiece, temperature: float = 1.0) -> Tensor:
    """The exact Hessian of the mean loss by all prunable weights, in order."""
    weights = {name: w.detach() for name, w in prunable(work.model).items()}
    sizes, data = [w.numel() for w in weights.values()], work.train
    assert data is not None

    def mean_loss(flat: Tensor) -> Tensor:
        parts = zip(weights, torch.split(flat, sizes), strict=True)
        tensors = {name: part.reshape(weights[name].shape) for name, part in parts}
        return work.loss(functional_call(work.model, tensors, (data.x,)) / temperature, data.y)

    matrix: Tensor = torch.autograd.functional.hessian(mean_loss, flat(weights))
    return matrix


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


def test_with_relu_the_gauss_newton_diagonal_is_the_hessians() -> None:
    work = bent(nn.ReLU())
    exact = hessian(work).diagonal()
    assert torch.allclose(flat(Evidence.of(work).gauss_newton(3)), exact, atol=1e-12)
    w = flat(Evidence.of(work).weights)
    assert torch.allclose(
        flat(registry.get("criterion", "obd")(Evidence.of(work), probes=3)),
        exact * w**2 / 2,
        atol=1e-12,
    )


def test_gauss_newton_by_probes_comes_to_the_same() -> None:
    work = bent(nn.Tanh())
    seen = Evidence.of(work)
    exact, probed = (
        flat(seen.gauss_newton(3)),
        torch.stack([flat(Evidence.of(work, seed=s).gauss_newton(2)) for s in range(60)]),
    )
    error = probed.std(0) / math.sqrt(60)
    assert ((probed.mean(0) - exact).abs() <= 5 * error + 1e-9).all()
    # the true Fisher: labels sampled from the model's own outputs
    p = work.model(seen.data.x).softmax(1)
    fisher = torch.zeros_like(exact)
    for x, probabilities in zip(seen.data.x, p, strict=True):
        for label, probability in enumerate(probabilities):
            parts = torch.autograd.grad(
                work.loss(work.model(x[None]), torch.tensor([label])),
                list(prunable(work.model).values()),
            )
            fisher += (
                probability.detach()
                * torch.cat([part.flatten() for part in parts]).square()
                / len(p)
            )
    assert torch.allclose(exact, fisher, atol=1e-10)


def test_hutchinson_converges_to_the_hessians_diagonal() -> None:
    work = bent(nn.Tanh())
    exact = hessian(work).diagonal()
    seen = Evidence.of(work, seed=1)  # which remembers what it was asked
    errors = [
        (flat(seen.hessian_diagonal(probes)) - exact).norm() / exact.norm()
        for probes in (2, 32, 256)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.15
    scores = flat(registry.get("criterion", "hutchinson")(seen, probes=256))
    assert (
        torch.corrcoef(
            torch.stack([scores, exact.abs() * flat(Evidence.of(work).weights) ** 2 / 2])
        )[0, 1]
        > 0.98
    )


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_weight_times_hessian_times_gradient(temperature: float) -> None:
    work = bent(nn.Tanh())
    w = {name: p for name, p in prunable(work.model).items()}
    loss = work.loss(work.model(work.train.x) / temperature, work.train.y)
    slope = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(w.values()))])
    exact = flat({n: p.detach() for n, p in w.items()}) * (hessian(work, temperature) @ slope)
    scores = registry.get("criterion", "grasp")(Evidence.of(work), temperature=temperature)
    assert torch.allclose(flat(scores), exact, rtol=1e-6, atol=1e-14)


def test_grasp_in_train_mode_normalises_by_the_batch_and_leaves_the_model_alone() -> None:
    """The authors' code: g and Hg of a loss whose BatchNorm takes each batch's own statistics."""
    work = toy("residual")
    before = copy.deepcopy(work.model.state_dict())
    train = registry.get("criterion", "grasp")(Evidence.of(work), temperature=1.0)
    eval_ = registry.get("criterion", "grasp")(Evidence.of(work), mode="eval", temperature=1.0)
    assert all(torch.equal(before[n], value) for n, value in work.model.state_dict().items())
    assert not work.model.training
    assert float((flat(train) - flat(eval_)).abs().max()) > 0.01
    # With the whole data as one batch, by plain double backward.
    assert work.train is not None
    one = replace(work, train=replace(work.train, batch=48))
    scores = registry.get("criterion", "grasp")(Evidence.of(one), temperature=1.0)
    model = copy.deepcopy(work.model).train()
    weights = list(prunable(model).values())
    loss = work.loss(model(work.train.x), work.train.y)
    slopes = torch.autograd.grad(loss, weights, create_graph=True)
    dot = torch.stack([(s * s.detach()).sum() for s in slopes]).sum()
    flows_ = torch.autograd.grad(dot, weights)
    for name, w, flow in zip(scores, weights, flows_, strict=True):
        assert torch.allclose(scores[name], w * flow, rtol=1e-3, atol=1e-6)


def test_no_batch_in_train_mode_holds_one_example_alone() -> None:
    for n, batch in ((7, 3), (5, 2), (21, 20), (9, 4), (2, 1)):
        data = Batches(torch.arange(n).float(), torch.arange(n), batch)
        sizes = [len(x) for x, _ in _mixed(data, torch.Generator().manual_seed(0))]
        assert min(sizes) > 1 and sum(sizes) == n


@pytest.mark.parametrize("name", ["residual", "depthwise", "tied", "attention"])
def test_fisher_is_what_a_loop_over_examples_says(name: str) -> None:
    work = toy(name)
    weights = prunable(work.model)
    total = {n: torch.zeros_like(w) for n, w in weights.items()}
    assert work.train is not None
    for x, y in zip(work.train.x, work.train.y, strict=True):
        parts = torch.autograd.grad(work.loss(work.model(x[None]), y[None]), list(weights.values()))
        total = {
            n: total[n] + part.square() / len(work.train.x)
            for n, part in zip(weights, parts, strict=True)
        }
    scores = registry.get("criterion", "fisher")(Evidence.of(work))
    for n, w in weights.items():
        assert torch.allclose(scores[n], total[n] * w.detach() ** 2 / 2, rtol=1e-4, atol=1e-9)


def test_snip_ranks_as_taylor_does_on_the_same_examples_and_sums_to_one() -> None:
    work = toy("residual")
    snip = registry.get("criterion", "snip")(Evidence.of(work))
    taylor = registry.get("criterion", "taylor")(Evidence.of(work), over="mean")
    whole = flat(taylor).sum()
    assert flat(snip).sum() == pytest.approx(1)
    assert all(torch.allclose(snip[n] * whole, taylor[n], rtol=1e-4) for n in taylor)


def test_synflow_conserves_the_flow_from_layer_to_layer() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=2, padding=1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 6, bias=False),
            nn.ReLU(),
            nn.Linear(6, 3, bias=False),
        )
    evidence = Evidence(model, example=torch.zeros(1, 2, 6, 6))
    weights = {name: w.double().abs() for name, w in evidence.weights.items()}
    sums = [
        float(part.sum()) for part in flows(positive(model), weights, evidence.example).values()
    ]
    assert sums == pytest.approx([1.0] * 4)  # each layer carries all of R


@pytest.mark.parametrize("target", [0.5, 0.9, 0.98])
def test_synflow_at_its_target_prunes_what_the_papers_rounds_prune(target: float) -> None:
    """Algorithm 1: in round k of n, score what remains and keep a share of (1 − s)^(k/n) of all."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)]
        model = nn.Sequential(*layers)
    evidence = Evidence(model, example=torch.zeros(1, 20))
    weights = {name: w.abs() for name, w in evidence.weights.items()}
    total, rounds = 1650, 20
    keep = torch.ones(total, dtype=torch.bool)
    for k in range(1, rounds + 1):
        parts = torch.split(keep, [w.numel() for w in weights.values()])
        masks = [part.reshape(w.shape) for part, w in zip(parts, weights.values(), strict=True)]
        masked = {name: w * m for (name, w), m in zip(weights.items(), masks, strict=True)}
        flow = flat(flows(positive(model, torch.float32), masked, evidence.example))
        count = total - max(1, round(total * (1 - target) ** (k / rounds)))
        keep = torch.ones(total, dtype=torch.bool)
        keep[flow.argsort(stable=True)[:count]] = False
    scores = registry.get("criterion", "synflow")(evidence, rounds=rounds, target=target)
    lowest = flat(scores).argsort(stable=True)[: total - int(keep.sum())]
    assert not keep[lowest].any()


def test_synflow_takes_no_more_than_three_times_its_rounds() -> None:
    for target in (0.001, 0.3, 0.9, 0.9999):
        kept = _kept_by_round(10_000, 100, target)
        assert len(kept) <= 300
        assert min(kept) == max(1, round(10_000 * min(LAST, 1 - target)))
        assert round(10_000 * (1 - target)) in kept or target > 0.9998
        assert kept == sorted(set(kept), reverse=True)


def test_movement_trained_under_its_mask_ranks_what_can_be_pruned() -> None:
    """digits-mlp with nine of ten weights pruned, before any fine-tuning: by Sanh's masks, and by
    how the weights of an unmasked training moved.
    """
    work = sample_models.load("digits-mlp")
    right = {}
    for under in ("mask", "nothing"):
        recipe = pruning.Recipe(criterion="movement", options={"under": under}, sparsity=0.9)
        copied = replace(work, model=copy.deepcopy(work.model))
        selection.remove(recipe, copied, pruning.choose(recipe, copied))
        assert copied.test is not None
        right[under] = evaluate(copied.model, copied.test, copied.loss)[0].value
    assert right["mask"] > 0.9 > right["nothing"]


@pytest.mark.parametrize("share", [0.99, 0.999])
def test_synflow_leaves_every_layer_open_where_its_one_look_and_magnitude_close_one(
    share: float,
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(100, 100, bias=False) for _ in range(6)))
        model[3].weight.data *= 0.01
    evidence = Evidence(model, example=torch.zeros(1, 100))

    def least(criterion: str, **options: object) -> int:
        scores = registry.get("criterion", criterion)(evidence, **options)
        line = flat(scores).sort().values[round(share * 60_000)]
        return min(int((values >= line).sum()) for values in scores.values())

    assert least("synflow") > 0
    assert least("magnitude") == 0


# ---------------------------------------------------------------- compensation


@pytest.mark.parametrize("name", ["mlp", "residual", "depthwise", "tied", "attention", "one_unit"])
def test_compensation_keeps_what_stays_zero_and_brings_each_layer_closer(name: str) -> None:
    work = toy(name)
    recipe = pruning.Recipe(criterion="obs", sparsity=0.6, scope="per_layer")
    keep, before = pruning.choose(recipe, work), copy.deepcopy(work.model.state_dict())
    made = selection.compensation(recipe, work, keep)
    assert all(torch.equal(before[n], value) for n, value in work.model.state_dict().items())
    seen = Evidence.of(work)
    for layer, grams in seen.grams():
        if layer not in made:
            assert bool(keep[layer].all())
            continue
        layout, w = seen.layouts[layer], seen.weights[layer]
        assert not made[layer][~keep[layer]].any()
        for old, new, on, gram in zip(
            *map(layout.matrices, (w, made[layer], keep[layer])), grams, strict=True
        ):
            h = _obs_solver.damped(gram, 0.01)
            assert (
                _obs_solver.loss(old, new, h)
                <= _obs_solver.loss(old, old * on, h) * (1 + 1e-5) + 1e-9
            ).all()


def test_most_criteria_make_up_for_nothing() -> None:
    work = toy("mlp")
    recipe = pruning.Recipe(criterion="magnitude", sparsity=0.6)
    assert selection.compensation(recipe, work, pruning.choose(recipe, work)) == {}


def test_on_a_trained_network_what_the_field_reports_holds_before_any_fine_tuning() -> None:
    """digits-mlp with nine of ten weights pruned: at random, by magnitude, by OBS."""
    work = sample_models.load("digits-mlp")
    right = {}
    for criterion in ("random", "magnitude", "obd", "obs"):
        recipe = pruning.Recipe(criterion=criterion, sparsity=0.9)
        copied = replace(work, model=copy.deepcopy(work.model))
        selection.remove(recipe, copied, pruning.choose(recipe, copied))
        assert copied.test is not None
        right[criterion] = evaluate(copied.model, copied.test, copied.loss)[0].value
    assert right["random"] < 0.3 < right["magnitude"] < right["obd"] < right["obs"]
    assert right["obs"] > 0.95  # measured 0.97, dense 0.978; magnitude 0.63
