"""Granularities by hand: small matrices that can be checked in the head, and attention heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pruning
from pruning import registry
from pruning.allocation.ranked import rank
from pruning.allocation.ranking import Ranking
from pruning.errors import OutOfRange, RecipeError
from pruning.events import Notice
from pruning.evidence import Evidence, attention
from pruning.recipe import Recipe
from pruning.types import Workpiece, prunable
from pruning.units.granularities import Tiling
from pruning.units.layout import lay_out
from sample_models.vit import ViT
from tests.toys import toy


def layer(*rows: list[float]) -> Workpiece:
    """One linear layer with these weights, and an output layer of large ones."""
    model = nn.Sequential(nn.Linear(len(rows[0]), len(rows)), nn.Linear(len(rows), 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(rows))
        model[1].weight.fill_(100.0)
    return Workpiece("by hand", model, example=torch.zeros(1, len(rows[0])))


def kept(work: Workpiece, granularity: str, share: float, **options: object) -> list[list[int]]:
    fields = {"scope": "manual", "ratios": {"0.weight": share}}
    recipe = Recipe(granularity=granularity, granularity_options=options, **fields)
    return pruning.choose(recipe, work)["0.weight"].int().tolist()


def test_two_of_four_keeps_the_two_largest_of_each_group() -> None:
    # Groups (1 4 2 3), (5 6 8 7), (1 1 1 1), (9 0 9 0) lose 1+2, 5+6, 1+1 (the first two), 0+0.
    work = layer([1, 4, 2, 3, 5, 6, 8, 7], [1, 1, 1, 1, 9, 0, 9, 0])
    assert kept(work, "n_of_m", 0.5) == [[0, 1, 0, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 0, 1, 0]]
    # A quarter of the weights: half of the groups.
    assert kept(work, "n_of_m", 0.25) == [[1] * 8, [0, 0, 1, 1, 1, 0, 1, 0]]
    assert kept(work, "n_of_m", 0.9) == kept(work, "n_of_m", 0.5)  # the pattern is all it can lose


def test_one_of_four_removes_three() -> None:
    work = layer([1, 4, 2, 3], [5, 6, 8, 7])
    assert kept(work, "n_of_m", 0.75, n=1) == [[0, 1, 0, 0], [0, 0, 1, 0]]


def test_n_of_m_runs_along_the_input_channels_of_a_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(4, 1, 2), nn.Flatten(), nn.Linear(1, 2))
    # At place (0, 0) the inputs' weights are 1 2 3 4, at (1, 1) 4 3 2 1; all others are 1.
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].weight[0, :, 0, 0] = torch.tensor([1.0, 2, 3, 4])
        model[0].weight[0, :, 1, 1] = torch.tensor([4.0, 3, 2, 1])
    work = Workpiece("convolution", model, example=torch.zeros(1, 4, 2, 2))
    recipe = Recipe(granularity="n_of_m", scope="per_layer", sparsity=0.5)
    keep = pruning.choose(recipe, work)["0.weight"][0]
    assert keep[:, 0, 0].int().tolist() == [0, 0, 1, 1]
    assert keep[:, 1, 1].int().tolist() == [1, 1, 0, 0]
    assert keep[:, 0, 1].int().tolist() == [0, 0, 1, 1]  # ties are pruned by flat index


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_impossible_patterns_are_refused(n: int, m: int) -> None:
    with pytest.raises(OutOfRange, match="Option n of n_of_m"):
        recipe = Recipe(granularity="n_of_m", granularity_options={"n": n, "m": m})
        pruning.choose(recipe, toy("mlp"))


def test_inputs_that_m_does_not_divide_stay_dense_and_say_why() -> None:
    ranking = rank(Recipe(granularity="n_of_m"), toy("mlp")).ranking
    assert ranking.fixed["0.weight"] == "its 5 inputs do not come in groups of 4."
    assert list(ranking.units) == ["2.weight"]


def test_a_pattern_says_that_no_more_can_be_pruned() -> None:
    recipe = Recipe(granularity="n_of_m", sparsity=0.8, epochs=1)
    history = pruning.run(recipe, toy("mlp"))
    notices = [event.text for event in history if isinstance(event, Notice)]
    assert any("50.0% of the weights" in text and "not 80.0%" in text for text in notices)


def blocks_of(work: Workpiece, **options: object) -> Tiling:
    """How 2×2 blocks tile the first layer."""
    block = registry.get("granularity", "block")(rows=2, columns=2, **options)
    tiling = block.fit(work.model, "0.weight")
    assert isinstance(tiling, Tiling)
    return tiling


def test_blocks_at_the_edge_are_smaller() -> None:
    # 3×5 in blocks of 2×2: three above, three below; the means are 1 2 3 / 4 5 6.
    rows = [[1.0, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]
    work = layer(*rows)
    tiling = blocks_of(work)
    assert tiling.pool(torch.tensor(rows)).tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.as_tensor(tiling.cost).tolist() == [4, 4, 2, 2, 2, 1]
    # Of 15 weights, half is 7.5: two blocks are 8, one is 4, which is further off.
    two_blocks = [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert kept(work, "block", 0.5, rows=2, columns=2) == two_blocks
    three_blocks = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert kept(work, "block", 0.68, rows=2, columns=2) == three_blocks


@pytest.mark.parametrize(
    ("pool", "wanted"),
    [("sum", [4, 2, 8, 6]), ("max", [1, 1, 4, 6]), ("l2", [2.0, 2**0.5, 32**0.5, 6])],
)
def test_pools_of_blocks_see_only_what_is_there(pool: str, wanted: list[float]) -> None:
    rows = [[1.0, 1, 1], [1, 1, 1], [4, 4, 6]]
    pooled = blocks_of(layer(*rows), pool=pool).pool(torch.tensor(rows))
    assert pooled.tolist() == pytest.approx(wanted)


def test_kernels_rows_and_columns_by_hand() -> None:
    work = toy("residual")
    keep = pruning.choose(Recipe(granularity="kernel", scope="per_layer", sparsity=0.5), work)
    kernels = keep["second.weight"].flatten(2).sum(2)  # (6, 6), 9 for a kernel that is kept
    assert sorted(kernels.unique().tolist()) == [0, 9]
    assert int((kernels == 0).sum()) == 18
    assert keep["head.weight"].all()
    matrix = layer([1, 9, 5], [1, 9, 1])
    assert kept(matrix, "column", 0.34) == [[0, 1, 1], [0, 1, 1]]
    assert kept(matrix, "row", 0.5) == [[1, 1, 1], [0, 0, 0]]
    recipe = Recipe(granularity="row", scope="manual", ratios={"0.weight": 0.5})
    keep = pruning.choose(recipe, matrix)
    assert keep["0.bias"].tolist() == [True, False]
    assert "1.bias" not in {name for name, mask in keep.items() if not mask.all()}


def test_what_fits_nothing_is_refused_with_the_reason() -> None:
    refusal = r"head fits no layer of this model .*no attention.*choose another granularity"
    with pytest.raises(RecipeError, match=refusal):
        pruning.choose(Recipe(granularity="head"), toy("mlp"))
    with pytest.raises(RecipeError, match=r"kernel fits no layer.*it is no convolution"):
        pruning.choose(Recipe(granularity="kernel"), toy("mlp"))


# ---------------------------------------------------------------- heads


def test_heads_are_found_apart_and_packed() -> None:
    apart, packed = attention.blocks(toy("attention").model)
    assert (apart.path, len(apart.parts), apart.heads, apart.size) == ("apart", 3, 2, 4)
    assert (packed.path, len(packed.parts), packed.heads, packed.size) == ("packed", 1, 2, 4)
    assert not apart.reason and not packed.reason
    paths = [block.path for block in attention.blocks(ViT())]
    assert paths == [f"blocks.{i}.attention" for i in range(3)]
    assert "different widths" in attention.blocks(nn.MultiheadAttention(8, 2, kdim=4))[0].reason
    assert attention.blocks(toy("residual").model) == []


def test_pruning_a_head_prunes_queries_keys_and_values_with_their_biases() -> None:
    work = toy("attention")
    # Head 1 of the first block and head 0 of the second are the smallest.
    with torch.no_grad():
        for part in ("query", "key", "value"):
            work.model.get_parameter(f"apart.{part}.weight")[4:].mul_(1e-3)
        work.model.get_parameter("packed.in_proj_weight").view(3, 2, 4, 8)[:, 0].mul_(1e-3)
    keep = pruning.choose(Recipe(granularity="head", scope="per_layer", sparsity=0.5), work)
    first = [True] * 4 + [False] * 4
    second = [False] * 4 + [True] * 4
    for part in ("query", "key", "value"):
        assert keep[f"apart.{part}.weight"].all(1).tolist() == first
        assert keep[f"apart.{part}.bias"].tolist() == first
    assert keep["packed.in_proj_weight"].all(1).tolist() == second * 3
    assert keep["packed.in_proj_bias"].tolist() == second * 3
    # What reads the head is pruned with it.
    assert keep["apart.out.weight"].all(0).tolist() == first
    assert keep["packed.out_proj.weight"].all(0).tolist() == second
    assert keep["head.weight"].all()


def test_a_pruned_head_passes_nothing_on() -> None:
    """Without the head, the columns of the output projection that read it can be anything."""
    work = toy("attention")
    keep = pruning.choose(Recipe(granularity="head", scope="per_layer", sparsity=0.5), work)
    pruning.apply(keep, work.model)
    x = torch.randn(5, 3, 8)
    before = work.model(x)
    removed = {
        "apart.out.weight": ~keep["apart.value.weight"].any(1),
        "packed.out_proj.weight": ~keep["packed.in_proj_weight"][16:].any(1),  # rows of the values
    }
    with torch.no_grad():
        for name, columns in removed.items():
            work.model.get_parameter(name)[:, columns] = 7.0
    assert torch.equal(work.model(x), before)


def test_heads_name_the_layers_they_leave_whole_and_share_one_ratio() -> None:
    ranking = rank(Recipe(granularity="head"), toy("attention")).ranking
    assert ranking.fixed["apart.out.weight"] == "its weights belong to no attention head."
    assert ranking.leaders == {
        "apart.key.weight": "apart.query.weight",
        "apart.value.weight": "apart.query.weight",
    }
    layers = set(ranking.layers_of(Recipe(granularity="head")).units)
    assert layers == {"apart.query.weight", "packed.in_proj_weight"}
    with pytest.raises(
        OutOfRange, match=r"its units are pruned with those of apart\.query\.weight"
    ):
        by_key = Recipe(granularity="head", scope="manual", ratios={"apart.key.weight": 0.5})
        ranking.preview(by_key)
    # Excluding a part of a head excludes the head.
    recipe = Recipe(granularity="head", exclude=("apart.key.weight",), sparsity=0.5)
    layers = ranking.preview(recipe).layers
    pruned = {layer.name for layer in layers if layer.kept < layer.total}
    assert pruned == {"packed.in_proj_weight", "packed.out_proj.weight"}


def test_rankings_of_uneven_units_and_groups_survive_their_file(tmp_path: Path) -> None:
    for granularity in ("block", "head", "n_of_m"):
        recipe = Recipe(granularity=granularity, sparsity=0.5)
        ranking = rank(recipe, toy("attention")).ranking
        ranking.save(tmp_path / "ranking.npz")
        loaded = Ranking.load(tmp_path / "ranking.npz")
        assert loaded.preview(recipe) == ranking.preview(recipe)
        assert loaded.leaders == ranking.leaders
        assert loaded.output == ranking.output == "head.weight"


def test_torchvisions_transformers_have_heads() -> None:
    from torchvision.models import vit_b_16
    from torchvision.models.swin_transformer import SwinTransformer

    with torch.device("meta"):
        vit = vit_b_16()
        swin = SwinTransformer([4, 4], 24, [2, 2], [3, 6], [7, 7])
    parameters = dict(vit.named_parameters())
    for block in attention.blocks(vit):
        assert (block.heads, block.size, block.reason) == (12, 64, "")
        assert parameters.keys() >= set(block.parts)
    assert [block.heads for block in attention.blocks(swin)] == [3, 3, 6, 6]


def test_every_layer_is_covered_or_says_why() -> None:
    for name in ("residual", "attention", "depthwise"):
        work = toy(name)
        for granularity in registry.names("granularity"):
            fixed = lay_out(Recipe(granularity=granularity), work).kept_whole()
            covered = lay_out(Recipe(granularity=granularity), work).covered()
            assert covered.isdisjoint(fixed)
            assert covered | set(fixed) == set(prunable(work.model))


@pytest.mark.parametrize("criterion", ["geometric_median", "bn_scale", "activation"])
def test_scores_of_whole_outputs_count_each_layer_once(criterion: str) -> None:
    """Two layers that add into each other: 9 weights for each output of the first, 54 of the
    second, and yet both have the same say.
    """
    work = toy("residual")
    with torch.no_grad():
        work.model.norm1.weight.copy_(torch.rand(6))  # type: ignore[union-attr, operator]
    recipe = Recipe(criterion=criterion, granularity="channel")
    ranked = rank(recipe, work)
    (units,) = (scores for scores in ranked.scores.values())
    scores = registry.get("criterion", criterion)(Evidence.of(work))
    by_layer = [scores[name].flatten(1)[:, 0] for name in ("first.weight", "second.weight")]
    assert torch.allclose(units, (by_layer[0] + by_layer[1]) / 2, rtol=1e-5)


def test_scores_of_single_weights_are_pooled_over_makers_and_readers_as_asked() -> None:
    """By SynFlow, which is not for every granularity and yet scores single weights."""
    work = toy("residual")
    scores = registry.get("criterion", "synflow")(Evidence.of(work), rounds=1)
    for over in ("all", "rows"):
        recipe = Recipe(
            criterion="synflow",
            options={"rounds": 1},
            granularity="channel",
            granularity_options={"over": over, "pool": "sum"},
        )
        (units,) = rank(recipe, work).scores.values()
        made = scores["first.weight"].flatten(1).sum(1) + scores["second.weight"].flatten(1).sum(1)
        read = scores["second.weight"].transpose(0, 1).flatten(1).sum(1)
        read = read + scores["head.weight"].sum(0)
        assert torch.allclose(units, made + read if over == "all" else made, rtol=1e-4)
