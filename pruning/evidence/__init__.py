"""What a criterion may look at, each gathered once, when first asked for. The model is left exactly as found:
parameters, buffers, gradients, modes and hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from pruning.errors import DataError
from pruning.evidence import gradients as passes
from pruning.evidence.activations import (
    Layout,
    TrackOutputs,
    WatchWeights,
    WeightUse,
    layouts,
    math_attention,
)
from pruning.types import Batches, Loss, Workpiece, prunable

GRAMS = 2**27
"""Numbers of input correlations held at once, at most: 512 MB."""


class Evidence:
    """What is known of a model on its data.

    model: read, never changed; data: training examples, for criteria that need them; limit: examples looked at, at most;
    example: an input batch, for criteria that need to see how the layers are joined; seed: of everything drawn at random.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Batches | None = None,
        loss: Loss = nn.functional.cross_entropy,
        *,
        example: Tensor | None = None,
        seed: int = 0,
        limit: int = 1024,
    ) -> None:
        self.model, self._data, self.loss, self.seed, self.limit = model, data, loss, seed, limit
        self._example = example
        self._kept: dict[tuple[str, int], dict[str, Tensor]] = {}

    @classmethod
    def of(cls, work: Workpiece, *, seed: int = 0, limit: int = 1024) -> Evidence:
        return cls(work.model, work.train, work.loss, example=work.example, seed=seed, limit=limit)

    def fewer(self, examples: int) -> Evidence:
        """The same, on no more than so many examples."""
        limit = min(examples, self.limit)
        return Evidence(
            self.model, self._data, self.loss, example=self._example, seed=self.seed, limit=limit
        )

    # ------------------------------------------------------------ what is given

    @property
    def data(self) -> Batches:
        """The first `limit` training examples. Raises DataError when there are none."""
        return self.all_data.head(self.limit)

    @property
    def all_data(self) -> Batches:
        """Every training example, for criteria that train. Raises DataError when there are none."""
        if self._data is None:
            raise DataError(
                "This criterion looks at training data, and the model has none: choose one that looks at weights alone."
            )
        return self._data

    @property
    def example(self) -> Tensor:
        """One input, a batch of 1, in the model's precision. Raises DataError when there is neither an example nor data."""
        given = (
            self._example
            if self._example is not None
            else self._data.x
            if self._data is not None
            else None
        )
        if given is None:
            raise DataError(
                "This criterion runs the model once, and there is no example input: choose one that looks at weights alone."
            )
        kind = next(iter(self.weights.values())).dtype
        return given[:1].to(kind) if given.is_floating_point() else given[:1]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Prunable parameter name -> its values, detached."""
        return {name: weight.detach() for name, weight in prunable(self.model).items()}

    # ------------------------------------------------------------ derivatives

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Prunable parameter name -> gradient of the mean loss over `data`, in eval mode."""
        with frozen_eval(self.model):
            return passes.gradient(self.model, self.weights, self.data, self.loss)

    @cached_property
    def squared_gradients(self) -> dict[str, Tensor]:
        """Mean over examples of each example's squared gradient: the diagonal of the empirical Fisher matrix. 1.5 gradients."""
        return self._moments[1]

    @cached_property
    def gradient_sizes(self) -> dict[str, Tensor]:
        """Mean over examples of the size of each example's gradient. 1.5 gradients."""
        return self._moments[0]

    @cached_property
    def _moments(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with frozen_eval(self.model):
            return passes.moments(self.model, self.weights, self.data, self.loss)

    def gauss_newton(self, probes: int) -> dict[str, Tensor]:
        """Diagonal of the Gauss-Newton matrix of the mean cross-entropy, exact from as many probes as classes on. 1.5 gradients each."""
        if self.data.y.is_floating_point():
            raise DataError(
                "The Gauss-Newton diagonal is of a classifier's cross-entropy, not of these targets: choose fisher."
            )

        def gather() -> dict[str, Tensor]:
            with frozen_eval(self.model):
                return passes.gauss_newton(
                    self.model, self.weights, self.data, probes, self._chance(500_001)
                )

        return self._once("gauss_newton", probes, gather)

    def hessian_diagonal(self, probes: int) -> dict[str, Tensor]:
        """Hutchinson's estimate of the diagonal of the Hessian of the mean loss, E[v ⊙ Hv] over random signs v. 3.6 gradients each."""

        def gather() -> dict[str, Tensor]:
            chance, total = (
                self._chance(500_002),
                {name: torch.zeros_like(w) for name, w in self.weights.items()},
            )
            with frozen_eval(self.model):
                for _ in range(probes):
                    direction = partial(passes.signs, self.weights, chance)
                    found, _ = passes.curved(
                        self.model, self.weights, self.data, self.loss, direction
                    )
                    total = {name: total[name] + part / probes for name, part in found.items()}
            return total

        return self._once("hessian_diagonal", probes, gather)

    def _once(
        self, what: str, number: int, gather: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What was gathered before, or is now."""
        if (what, number) not in self._kept:
            self._kept[what, number] = gather()
        return self._kept[what, number]

    def hessian_gradient(self, temperature: float) -> dict[str, Tensor]:
        """Hessian times gradient, both of the mean loss with outputs divided by `temperature`. 4.6 gradients."""
        with frozen_eval(self.model):
            slope = passes.gradient(self.model, self.weights, self.data, self.loss, temperature)
            return passes.curved(
                self.model, self.weights, self.data, self.loss, lambda: slope, temperature
            )[1]

    # ------------------------------------------------------------ what goes in and out

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """How each weight is a stack of matrices (groups, rows, inputs)."""
        return layouts(self.model)

    @cached_property
    def input_norms(self) -> dict[str, Tensor]:
        """‖x‖₂ of what each weight is multiplied with, over all examples and positions; the weight's shape. 0 where nothing was seen."""
        total = {
            name: w.new_zeros(m.shape[0], 1, m.shape[2])
            for name, w in self.weights.items()
            for m in [self._matrices(name)]
        }

        def see(use: WeightUse) -> None:
            for x in use.inputs(self.weights[use.name].shape):
                total[use.name][use.groups] += x.square().sum(0).unsqueeze(1)

        self._watch(see)
        return {
            name: self.layouts[name].weight(
                total[name].sqrt().expand_as(self._matrices(name)), w.shape
            )
            for name, w in self.weights.items()
        }

    def grams(self, leave: Collection[str] = ()) -> Iterator[tuple[str, Tensor]]:
        """(name, XXᵀ) of the inputs of each weight: (groups, inputs, inputs), a mean over examples and a sum over positions.

        As many layers at once as memory is meant to hold, and a pass over the data for each lot. leave: names to pass over.
        """
        lot: dict[str, Tensor] = {}
        for name, w in self.weights.items():
            if name in leave:
                continue
            groups, _, inputs = self._matrices(name).shape
            if lot and sum(x.numel() for x in lot.values()) + groups * inputs**2 > GRAMS:
                yield from self._grams(lot).items()
                lot = {}
            lot[name] = torch.zeros(groups, inputs, inputs, dtype=torch.float32, device=w.device)
        yield from self._grams(lot).items()

    def _grams(self, lot: dict[str, Tensor]) -> dict[str, Tensor]:
        def see(use: WeightUse) -> None:
            if use.name in lot:
                for x in use.inputs(self.weights[use.name].shape):
                    x = x.float().transpose(0, 1)  # (groups, positions, inputs)
                    lot[use.name][use.groups] += x.transpose(1, 2) @ x / len(self.data.x)

        self._watch(see)
        return lot

    @cached_property
    def batch_scales(self) -> dict[str, Tensor]:
        """Name -> γ of the BatchNorm that reads its outputs, (out,); names whose outputs go elsewhere are left out."""
        return self._follow(self.example).scales

    def activations(self) -> Iterator[tuple[dict[str, Tensor], float]]:
        """(name -> its outputs as the next layer reads them, share of the examples), batch by batch: (n, out, ...) or (..., out)."""
        for x in torch.split(self.data.x, 32):  # the outputs of all layers are held at once
            yield self._follow(x).last, len(x) / len(self.data.x)

    def _follow(self, x: Tensor) -> TrackOutputs:
        follow = TrackOutputs(self.model)
        with frozen_eval(self.model), torch.no_grad(), follow:
            self.model(x)
        return follow

    def _watch(self, see: Callable[[WeightUse], None]) -> None:
        with frozen_eval(self.model), torch.no_grad(), WatchWeights(self.model, see):
            for x, _ in self.data:
                self.model(x)

    def _matrices(self, name: str) -> Tensor:
        return self.layouts[name].matrices(self.weights[name])

    # ------------------------------------------------------------ chance

    def random(self, name: str) -> torch.Generator:
        """A generator of its own for each tensor, so that a layer draws the same whatever stands beside it."""
        return self._chance(list(self.weights).index(name))

    def _chance(self, place: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed * 1_000_003 + place) % 2**63)


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode, and attention by its plain formula, which can be watched and derived twice."""
    with evaluating(model), math_attention():
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode back outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
