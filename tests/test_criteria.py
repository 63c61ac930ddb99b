"""Each criterion on numbers worked out by hand, and against an exact reference if there is one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pruning import registry
from pruning.errors import DataError, ModelError
from pruning.evidence import Evidence
from pruning.types import Batches, Scores, Workpiece
from tests.toys import toy


def half_square(out: Tensor, y: Tensor) -> Tensor:
    """½ (out − y)², mean over examples, sum over outputs: its gradient by out is out − y."""
    return (out - y).square().sum(1).mean() / 2


def linear(rows: list[list[float]]) -> nn.Linear:
    """A linear layer without bias, of these weights (out, in)."""
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return layer.eval()


def seen(
    model: nn.Module, x: list[list[float]], y: object = None, loss: object = half_square
) -> Evidence:
    """What is known of a model on a few examples; without targets, of a model alone."""
    inputs = torch.tensor(x)
    data = Batches(inputs, torch.tensor(y)) if y is not None else None
    return Evidence(model, data, loss, example=inputs)  # type: ignore[arg-type]


def scored(
    criterion: str, evidence: Evidence, name: str = "weight", **options: object
) -> list[float]:
    scores: Scores = registry.get("criterion", criterion)(evidence, **options)
    return scores[name].flatten().tolist()


VECTORS: dict[str, Callable[[], None]] = {}


def vector(check: Callable[[], None]) -> Callable[[], None]:
    """Numbers worked out by hand for the criterion that the function is named after."""
    VECTORS[check.__name__] = check
    return check


# One layer, w = [2, −3], one example x = [1, 2], y = 1: out = 2 − 6 = −4, ∂L/∂out = −5, ∂L/∂w =
# −5·x = [−5, −10].
def one_example() -> Evidence:
    return seen(linear([[2.0, -3.0]]), [[1.0, 2.0]], [[1.0]])


# The same with a second example x = [1, 0], y = 1: out = 2, ∂L/∂w = [1, 0]. Mean gradient [−2, −5].
def two_examples() -> Evidence:
    return seen(linear([[2.0, -3.0]]), [[1.0, 2.0], [1.0, 0.0]], [[1.0], [1.0]])


@vector
def magnitude() -> None:
    evidence = seen(linear([[1.0, -3.0], [0.0, 2.0]]), [[0.0, 0.0]])
    assert scored("magnitude", evidence) == [1, 3, 0, 2]
    assert scored("magnitude", evidence, norm="l2") == [1, 9, 0, 4]
    # those left are 1, −3, 2: mean 0, σ = √(14/3)
    assert scored("magnitude", evidence, scale="deviation") == pytest.approx(
        [v / math.sqrt(14 / 3) for v in (1, 3, 0, 2)]
    )
    assert scored("magnitude", seen(linear([[2.0, 2.0]]), [[0.0, 0.0]]), scale="deviation") == [
        2,
        2,
    ]  # σ = 0: left as they are


@vector
def random() -> None:
    model = linear([[1.0, 2.0], [3.0, 4.0]])
    first, other = (scored("random", Evidence(model, seed=seed)) for seed in (3, 4))
    assert (
        first
        == torch.rand(2, 2, generator=torch.Generator().manual_seed(3 * 1_000_003))
        .flatten()
        .tolist()
    )
    assert first != other


@vector
def gradient() -> None:
    assert scored("gradient", one_example()) == [5, 10]
    assert scored("gradient", two_examples()) == [2, 5]


@vector
def taylor() -> None:
    # |w · g| of each example: [10, 30] and [2, 0]; means [6, 15], of squares [(100 + 4)/2, 900/2]
    assert scored("taylor", two_examples()) == [6, 15]
    assert scored("taylor", two_examples(), squared=True) == [52, 450]
    assert scored("taylor", two_examples(), scale="layer") == pytest.approx(
        [6 / math.sqrt(261), 15 / math.sqrt(261)]
    )
    # of the mean gradient [−2, −5]: |2·−2|, |−3·−5|
    assert scored("taylor", two_examples(), over="mean") == [4, 15]
    assert scored("taylor", two_examples(), over="mean", squared=True) == [16, 225]


@vector
def fisher() -> None:
    # ½ w² E[g²]: E[g²] = [(25 + 1)/2, (100 + 0)/2] = [13, 50]; ½·4·13, ½·9·50
    assert scored("fisher", two_examples()) == [26, 225]


@vector
def snip() -> None:
    # |w · g| = [4, 15], of 19 in all; with one example |2·−5|, |−3·−10| of 40
    assert scored("snip", two_examples()) == pytest.approx([4 / 19, 15 / 19])
    assert scored("snip", two_examples(), examples=1) == pytest.approx([10 / 40, 30 / 40])


# Two classes, w = 0: p = (½, ½), diag p − ppᵀ = [[¼, −¼], [−¼, ¼]], so ∂²L/∂w_ci² = ¼ x_i² for one
# example x = [1, 2]; but w = 0 would
# score 0. Both rows [a, b] give equal logits, so p stays (½, ½): rows [2, −3].
def two_classes() -> Evidence:
    return seen(linear([[2.0, -3.0], [2.0, -3.0]]), [[1.0, 2.0]], [0], nn.functional.cross_entropy)


@vector
def obd() -> None:
    # ½ h w², h = ¼ [1, 4]: ½·¼·4, ½·1·9, for both rows
    assert scored("obd", two_classes(), probes=2) == pytest.approx([0.5, 4.5, 0.5, 4.5])
    # ½ (out − y)² bends by x² = [1, 4] along w, whatever out is; off the diagonal 2, and v ⊙ Hv =
    # [1 ± 2, 4 ± 2], the same sign
    h = scored("obd", one_example(), diagonal="hessian", probes=1)
    assert h == pytest.approx([0.5 * 4 * 3, 0.5 * 9 * 6]) or h == pytest.approx(
        [0.5 * 4 * -1, 0.5 * 9 * 2]
    )


@vector
def hutchinson() -> None:
    # H = xxᵀ = [[1, 2], [2, 4]]: one probe says 1 ± 2 and 4 ± 2; by size 3 or 1, and 6 or 2
    h = scored("hutchinson", one_example(), probes=1)
    assert h == pytest.approx([0.5 * 4 * 3, 0.5 * 9 * 6]) or h == pytest.approx(
        [0.5 * 4 * 1, 0.5 * 9 * 2]
    )


@vector
def grasp() -> None:
    # H g = xxᵀ g with x = [1, 2], g = [−5, −10]: xᵀg = −25, Hg = [−25, −50]; w ⊙ Hg = [−50, 150]
    assert scored("grasp", one_example(), temperature=1.0) == [-50, 150]
    # outputs halved: out = −2, g = (−3)·x/2 = [−1.5, −3], H = xxᵀ/4, xᵀg = −7.5, Hg = [−1.875,
    # −3.75]
    assert scored("grasp", one_example(), temperature=2.0) == [-3.75, 11.25]


@vector
def synflow() -> None:
    # R = Σ_h |v_h| (|u_h1| + |u_h2|): u = [[1, −2], [3, 0]], v = [[−1, 2]]: R = 1·3 + 2·3 = 9
    # u's scores are |v_h u_hi|: [1, 2, 6, 0]; v's |v_h| Σ_i |u_hi|: [3, 6]; both layers sum to R;
    # given as shares of R
    model = nn.Sequential(linear([[1.0, -2.0], [3.0, 0.0]]), linear([[-1.0, 2.0]]))
    evidence = seen(model, [[0.0, 0.0]])
    assert scored("synflow", evidence, "0.weight", rounds=1) == pytest.approx(
        [1 / 9, 2 / 9, 6 / 9, 0]
    )
    assert scored("synflow", evidence, "1.weight", rounds=1) == pytest.approx([3 / 9, 6 / 9])
    # in rounds of one weight: the 0 goes first, then 1, then (R = 2 + 6 now) u_12 and v_1 share 2,
    # and u_12 stands first; v_1 is idle now
    assert scored("synflow", evidence, "0.weight", rounds=100) == pytest.approx(
        [1 / 6, 2 / 6, 4 / 6, 0]
    )
    assert scored("synflow", evidence, "1.weight", rounds=100) == pytest.approx([3 / 6, 5 / 6])


@vector
def wanda() -> None:
    # x: [3, 0], [4, 1]: norms [5, 1]; |w| · norm
    evidence = seen(
        linear([[1.0, -2.0], [0.5, 4.0]]), [[3.0, 0.0], [4.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]
    )
    assert scored("wanda", evidence) == [5, 2, 2.5, 4]
    assert scored("wanda", evidence, compare="output") == [0.5, 0, 0, 0.5]


@vector
def movement() -> None:
    # lr 0.1, twice over one example. First g = [−5, −10]: −w·g = [10, −30], then w = [2.5, −2];
    # out = −1.5, g = −2.5·x = [−2.5, −5]: −w·g = [6.25, −10]. Sums [16.25, −40]: the first grows,
    # the second shrinks.
    whole = {"under": "nothing", "lr": 0.1}
    assert scored("movement", one_example(), steps=2, **whole) == pytest.approx([16.25, -40])
    assert scored("movement", one_example(), steps=1, **whole) == [10, -30]
    # what is zero stays zero: w = [0, −3]; out = −6, g = [−7, −14], w = [0, −1.6]; out = −3.2, g =
    # [−4.2, −8.4]: −42 − 13.44
    pruned = seen(linear([[0.0, -3.0]]), [[1.0, 2.0]], [[1.0]])
    assert scored("movement", pruned, steps=2, **whole) == pytest.approx([0, -55.44])
    # Under a mask that the first weight alone is left of in the second step: w' = [2.5, 0], out =
    # 2.5, g = 1.5·x = [1.5, 3]; w = [2.5, −2] is scored whole: −w·g = [−3.75, 6].
    masked = scored("movement", one_example(), steps=2, target=0.5, lr=0.1)
    assert masked == pytest.approx([10 - 3.75, -30 + 6])
    assert scored("movement", pruned, steps=2, target=0.5, lr=0.1)[0] == 0


@vector
def bn_scale() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)
    ).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-3.0, 0.5]))  # type: ignore[operator, arg-type]
    evidence = Evidence(model, example=torch.ones(1, 1, 1, 1))
    assert scored("bn_scale", evidence, "0.weight") == [3, 0.5]
    assert scored("bn_scale", evidence, "0.weight", scale="layer") == pytest.approx(
        [3 / 1.75, 0.5 / 1.75]
    )
    assert scored("bn_scale", evidence, "4.weight") == [0] * 6
    assert registry.companion("bn_scale", "skips")(evidence) == {  # type: ignore[misc]
        "4.weight": "no BatchNorm follows it, so it has no scale to go by."
    }


@vector
def geometric_median() -> None:
    # filters (0, 0), (3, 4), (0, 1): distances 5, 1, √18; sums 6, 5 + √18, 1 + √18
    evidence = seen(linear([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), [[0.0, 0.0]])
    far = math.sqrt(18)
    sums = [6, 6, 5 + far, 5 + far, 1 + far, 1 + far]
    assert scored("geometric_median", evidence, scale="none") == pytest.approx(sums)
    mean = (12 + 2 * far) / 3
    assert scored("geometric_median", evidence) == pytest.approx([s / mean for s in sums])


@vector
def reconstruction() -> None:
    # H = XᵀX / 2 = ½·1 for x = (1, 0) and (0, 1), which say nothing of each other: a channel costs
    # ½·w²·½, ¼ for w = 1 and 1 for w = 2, of outputs of ½·(1 + 4)·½ = 1¼
    nothing = [[0.0], [0.0]]
    evidence = seen(linear([[1.0, 2.0]]), [[1.0, 0.0], [0.0, 1.0]], nothing)
    assert scored("reconstruction", evidence, damping=0.0) == pytest.approx([0.2, 0.8])
    nothing = [[0.0, 0.0], [0.0, 0.0]]
    evidence = seen(linear([[1.0, 2.0], [3.0, 0.0]]), [[1.0, 0.0], [0.0, 1.0]], nothing)
    # rows add up: ¼·(1 + 9) and ¼·4 of ¼·(1 + 4 + 9)
    both = [10 / 14, 4 / 14] * 2
    assert scored("reconstruction", evidence, damping=0.0) == pytest.approx(both)


@vector
def activation() -> None:
    # outputs for x = 1 and x = −3: unit 0 (w = 2) 2, −6; unit 1 (w = −1) −1, 3; after ReLU 2, 0 and
    # 0, 3
    model = nn.Sequential(linear([[2.0], [-1.0]]), nn.ReLU(), linear([[1.0, 1.0]]))
    evidence = seen(model, [[1.0], [-3.0]], [[0.0], [0.0]])
    plain = {"scale": "none"}
    assert scored("activation", evidence, "0.weight", **plain) == [1, 1.5]
    assert scored("activation", evidence, "0.weight", measure="apoz", **plain) == [0.5, 0.5]
    # nothing bends it: (2 + 3)/2
    assert scored("activation", evidence, "2.weight", **plain) == [2.5, 2.5]
    # over the layer's mean
    assert scored("activation", evidence, "0.weight") == pytest.approx([0.8, 1.2])
    assert scored("activation", evidence, "2.weight") == [1, 1]


@vector
def obs() -> None:
    # x = (1, 0), (1, 1): XXᵀ/2 = ½ [[2, 1], [1, 1]] = [[1, ½], [½, ½]]; inverse [[2, −2], [−2, 4]].
    # w = [2, 3]:
    # w²/(2 [H⁻¹]): 4/4 = 1 and 9/8. The first goes; w₂ becomes 3 − 2/2·(−2) = 5; the last alone
    # costs ½·½·25 = 6.25.
    evidence = seen(linear([[2.0, 3.0]]), [[1.0, 0.0], [1.0, 1.0]], [[0.0], [0.0]])
    assert scored("obs", evidence, error="layer", damping=0.0) == pytest.approx([1, 6.25], rel=1e-4)
    keep = {"weight": torch.tensor([[False, True]])}
    made = registry.companion("obs", "compensate")(evidence, keep, damping=0.0)
    assert made["weight"].tolist() == [[0, pytest.approx(5, rel=1e-4)]]


@pytest.mark.parametrize("name", VECTORS)
def test_by_hand(name: str) -> None:
    VECTORS[name]()


def test_every_criterion_has_numbers_worked_out_by_hand() -> None:
    assert set(registry.names("criterion")) == set(VECTORS)


# ---------------------------------------------------------------- data


def without_data(name: str) -> Workpiece:
    work = toy(name)
    return Workpiece(name, work.model, loss=work.loss, example=work.example)


@pytest.mark.parametrize("criterion", registry.names("criterion"))
def test_what_a_criterion_says_it_needs_is_what_it_needs(criterion: str) -> None:
    needs = registry.entry("criterion", criterion).tags["needs"]
    score = registry.get("criterion", criterion)
    if needs == "data":
        with pytest.raises(DataError, match="choose one that looks at weights alone"):
            score(Evidence.of(without_data("residual")))
    else:
        score(Evidence.of(without_data("residual")))
    if needs == "nothing":
        score(Evidence(toy("residual").model))
    elif needs != "data":
        with pytest.raises(DataError, match="there is no example input"):
            score(Evidence(toy("residual").model))


@pytest.mark.parametrize("criterion", registry.names("criterion"))
def test_transposed_convolutions_are_scored_or_left_dense_with_the_reason(criterion: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 6, 3, stride=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        ).eval()
        data = Batches(torch.randn(12, 1, 6, 6), torch.arange(12) % 3)
    evidence = Evidence(model, data, example=data.x)
    skips = registry.companion(criterion, "skips")
    assert ("3.weight" in (skips(evidence) if skips else ())) == (
        criterion in ("bn_scale", "activation")
    )
    scores: Scores = registry.get("criterion", criterion)(evidence)
    assert {name: s.shape for name, s in scores.items()} == {
        name: w.shape for name, w in evidence.weights.items()
    }
    assert all(torch.isfinite(s).all() for s in scores.values())


def test_models_a_criterion_cannot_read_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        ModelError, match=r"no layer of this model is followed by BatchNorm: choose magnitude"
    ):
        registry.get("criterion", "bn_scale")(Evidence.of(toy("mlp")))
    with pytest.raises(ModelError, match=r"norms subtract a mean: choose magnitude or snip"):
        registry.get("criterion", "synflow")(Evidence.of(toy("attention")))
    work = toy("mlp")
    with pytest.raises(ModelError, match=r"diverged at learning rate 1e\+30"):
        registry.get("criterion", "movement")(Evidence.of(work), lr=1e30)
