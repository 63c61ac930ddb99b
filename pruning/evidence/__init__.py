"""Evidence: what a criterion may look at, gradients, curvature and activations among it.

Each is gathered once, when first asked for. The model is left exactly as found: parameters,
buffers, gradients, modes and hooks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from pruning.adapted import fit_to, precision, wide_copy
from pruning.devices import device_of, seeded
from pruning.errors import DataError
from pruning.evidence import gradients as derivatives
from pruning.evidence.activations import (
    Layout,
    TrackOutputs,
    WatchWeights,
    WeightUse,
    layouts,
    math_attention,
)
from pruning.types import (
    Batches,
    Inputs,
    Loss,
    Scores,
    Workpiece,
    count,
    parts_of,
    prunable,
    split,
    take,
)

UNWATCHED = (
    "no operation was seen to multiply it as it is: it is scaled, cast to another precision or "
    "made into another tensor first; magnitude and taylor can score it."
)

GRAMS = 2**27
"""Numbers of input correlations in memory at once, at most: 512 MB."""


class Evidence:
    """What is known of a model on its data.

    model: read, never changed
    data: training examples, for criteria that need them; limit: how many of them are used, at
        most: a random sample with as many of each class as of any other
    example: an input batch, for criteria that need to see how the layers are joined
    seed: of everything random
    """

    def __init__(
        self,
        model: nn.Module,
        data: Batches | None = None,
        loss: Loss = nn.functional.cross_entropy,
        *,
        example: Inputs | None = None,
        seed: int = 0,
        limit: int = 1024,
    ) -> None:
        # Squares and sums of gradients leave the range of half precision.
        self.model = wide_copy(model)
        self.loss = loss
        self.seed = seed
        self.limit = limit
        self._data = data
        self._example = example
        # what depends on a number of probes: a cached property cannot hold it
        self._by_probes: dict[tuple[str, int], dict[str, Tensor]] = {}

    @classmethod
    def of(cls, work: Workpiece, *, seed: int = 0, limit: int = 1024) -> Evidence:
        return cls(work.model, work.train, work.loss, example=work.example, seed=seed, limit=limit)

    def fewer(self, examples: int) -> Evidence:
        """The same, on no more than so many examples."""
        limit = min(examples, self.limit)
        return Evidence(
            self.model, self._data, self.loss, example=self._example, seed=self.seed, limit=limit
        )

    # ------------------------------------------------------------ data and weights

    @cached_property
    def data(self) -> Batches:
        """At most `limit` training examples, of each class as many: the same for every criterion.

        At random by the seed, where there are more. Raises DataError when there are none.
        """
        # On the device at once: it is read by every criterion, and some read it many times.
        return self.all_data.sample(self.limit, self.seed % 2**63, balanced=True).loaded()

    @property
    def all_data(self) -> Batches:
        """Every training example, for criteria that train. Raises DataError without any."""
        if self._data is None:
            raise DataError(
                "This criterion looks at training data, and the model has none: "
                "choose one that looks at weights alone."
            )
        return self._data

    @property
    def example(self) -> Inputs:
        """One input, a batch of 1, in the model's precision; a tuple where there are several.

        Raises DataError when there is neither an example nor data.
        """
        if self._example is not None:
            batch = self._example
        elif self._data is not None:
            batch = self._data.x
        else:
            raise DataError(
                "This criterion runs the model once, and there is no example input: "
                "choose one that looks at weights alone."
            )
        kind = precision(self.model)
        there = device_of(self.model)
        one = tuple(fit_to(part[:1].to(there), kind) for part in parts_of(batch))
        return one if isinstance(batch, tuple) else one[0]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Prunable parameter name -> its values, detached."""
        return {name: weight.detach() for name, weight in prunable(self.model).items()}

    # ------------------------------------------------------------ derivatives

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Prunable parameter name -> gradient of the mean loss over `data`, in eval mode."""
        with frozen_eval(self.model):
            return derivatives.gradient(self.model, self.weights, self.data, self.loss)

    @property
    def squared_gradients(self) -> dict[str, Tensor]:
        """Mean over examples of each example's squared gradient. Costs 1.5 gradients.

        The diagonal of the empirical Fisher matrix.
        """
        return self._gradient_moments[1]

    @property
    def gradient_sizes(self) -> dict[str, Tensor]:
        """Mean over examples of the size of each example's gradient. Costs 1.5 gradients."""
        return self._gradient_moments[0]

    @cached_property
    def _gradient_moments(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with frozen_eval(self.model):
            return derivatives.gradient_moments(self.model, self.weights, self.data, self.loss)

    def gauss_newton(self, probes: int) -> dict[str, Tensor]:
        """Diagonal of the Gauss-Newton matrix of the mean loss.

        Exact from as many probes as classes on. Costs 1.5 gradients for each probe.
        """
        key = ("gauss_newton", probes)
        if key not in self._by_probes:
            with frozen_eval(self.model):
                self._by_probes[key] = derivatives.gauss_newton(
                    self.model,
                    self.weights,
                    self.data,
                    self.loss,
                    probes,
                    self._generator(500_001),
                )
        return self._by_probes[key]

    def hessian_diagonal(self, probes: int) -> dict[str, Tensor]:
        """Hutchinson's estimate of the diagonal of the Hessian of the mean loss.

        E[v ⊙ Hv] over random signs v. Costs 3.6 gradients for each probe.
        """
        key = ("hessian_diagonal", probes)
        if key not in self._by_probes:
            direction = partial(derivatives.random_signs, self.weights, self._generator(500_002))
            total = {name: torch.zeros_like(w) for name, w in self.weights.items()}
            with frozen_eval(self.model):
                for _ in range(probes):
                    diagonal, _ = derivatives.hessian_product(
                        self.model, self.weights, self.data, self.loss, direction
                    )
                    for name, part in diagonal.items():
                        total[name] += part / probes
            self._by_probes[key] = total
        return self._by_probes[key]

    def hessian_gradient(self, temperature: float, *, train: bool = False) -> dict[str, Tensor]:
        """Hessian times gradient, of the mean loss with outputs divided by `temperature`.

        train: in train mode, where BatchNorm normalises by each batch and dropout draws, on
        batches that are mixed. Costs 4.6 gradients.
        """
        model, data = self.model, self.data
        if train:
            # a copy: in train mode a forward pass changes BatchNorm's running statistics
            model, data = copy.deepcopy(model), _mixed(data, self._generator(500_003))
        of = (self.weights, data, self.loss)
        with frozen_eval(model), seeded(self.seed % 2**63, device_of(model)):
            model.train(train)
            gradient = derivatives.gradient(model, *of, temperature)
            _, product = derivatives.hessian_product(model, *of, lambda: gradient, temperature)
        return product

    # ------------------------------------------------------------ inputs and activations

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """How each weight is a stack of matrices (groups, rows, inputs)."""
        return layouts(self.model)

    @cached_property
    def unwatched(self) -> dict[str, str]:
        """Weights that were not seen to be multiplied with anything -> why, a clause.

        A criterion that watches inputs or outputs has nothing to say of them, and 0 for each would
        rank them by their place.
        """
        unseen = dict.fromkeys(self.weights, UNWATCHED)
        watching = WatchWeights(self.model, lambda use: unseen.pop(use.name, None))
        with frozen_eval(self.model), torch.no_grad(), watching:
            self.model(self.example)
            # One input may take another branch than the next: all are asked before it is said.
            for x, _ in self.data if self._data is not None else ():
                if not unseen:
                    break
                self.model(x)
        return unseen

    @cached_property
    def input_norms(self) -> dict[str, Tensor]:
        """‖x‖₂ of what each weight is multiplied with, over all examples and positions.

        The weight's shape. 0 where no input was recorded.
        """
        squares = {}
        for name, w in self.weights.items():
            groups, _, inputs = self._matrices(name).shape
            squares[name] = w.new_zeros(groups, 1, inputs)

        def record(use: WeightUse) -> None:
            for x in use.inputs(self.weights[use.name].shape):
                squares[use.name][use.groups] += x.square().sum(0).unsqueeze(1)

        self._watch(record)
        norms = {}
        for name, w in self.weights.items():
            # all rows of a group read the same inputs
            matrices = squares[name].sqrt().expand_as(self._matrices(name))
            norms[name] = self.layouts[name].weight(matrices, w.shape)
        return norms

    def grams(self, leave: Collection[str] = ()) -> Iterator[tuple[str, Tensor]]:
        """(name, XXᵀ) of the inputs of each weight but those in `leave`: (groups, inputs, inputs).

        A mean over examples and a sum over positions. As many layers at once as `GRAMS` allows,
        with a pass over the data for each such chunk.
        """
        chunk: dict[str, Tensor] = {}
        for name, w in self.weights.items():
            if name in leave:
                continue
            groups, _, inputs = self._matrices(name).shape
            used = sum(gram.numel() for gram in chunk.values())
            if chunk and used + groups * inputs**2 > GRAMS:
                yield from self._fill(chunk).items()
                chunk = {}
            chunk[name] = torch.zeros(groups, inputs, inputs, dtype=torch.float32, device=w.device)
        yield from self._fill(chunk).items()

    def _fill(self, chunk: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors, with XXᵀ added to each."""

        def record(use: WeightUse) -> None:
            if use.name not in chunk:
                return
            for x in use.inputs(self.weights[use.name].shape):
                x = x.float().transpose(0, 1)  # (groups, positions, inputs)
                chunk[use.name][use.groups] += x.transpose(1, 2) @ x / self.data.examples

        self._watch(record)
        return chunk

    @cached_property
    def batch_scales(self) -> dict[str, Tensor]:
        """Name -> γ of the BatchNorm that reads its outputs, (out,), where one does."""
        return self._track(self.example).scales

    def activations(self) -> Iterator[tuple[dict[str, Tensor], float]]:
        """(name -> its activations, share of the examples), batch by batch.

        As the next layer reads them: (n, out, ...) for convolutions, (..., out) for linear layers.
        """
        # small batches: the activations of all layers are in memory at once
        for x in split(self.data.x, 32):
            yield self._track(x).activations, count(x) / self.data.examples

    def _track(self, x: Inputs) -> TrackOutputs:
        tracker = TrackOutputs(self.model)
        with frozen_eval(self.model), torch.no_grad(), tracker:
            self.model(x)
        return tracker

    def _watch(self, record: Callable[[WeightUse], None]) -> None:
        with frozen_eval(self.model), torch.no_grad(), WatchWeights(self.model, record):
            for x, _ in self.data:
                self.model(x)

    def _matrices(self, name: str) -> Tensor:
        return self.layouts[name].matrices(self.weights[name])

    # ------------------------------------------------------------ generators

    def generator(self, name: str) -> torch.Generator:
        """Of its own for each tensor, so that a layer's numbers do not depend on its neighbours."""
        return self._generator(list(self.weights).index(name))

    def _generator(self, place: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed * 1_000_003 + place) % 2**63)


def _mixed(data: Batches, generator: torch.Generator) -> Batches:
    """The same examples in a random order, in batches none of which holds one example alone."""
    order = torch.randperm(data.examples, generator=generator)
    batch = max(2, data.batch)
    while len(order) % batch == 1 and batch < len(order):  # BatchNorm has no variance of one
        batch += 1
    return Batches(take(data.x, order), data.y[order], batch)


def per_unit(values: Tensor, weight: Tensor) -> Tensor:
    """(units,) -> the weight's shape: each unit's value for all its weights."""
    return values.reshape(-1, *[1] * (weight.dim() - 1)).expand(weight.shape).clone()


def by_layer_mean(scores: Scores) -> Scores:
    """Scores over the mean of their layer, so that layers compare; all zeros stay zeros."""
    scaled = {}
    for name, values in scores.items():
        mean = values.float().mean()
        scaled[name] = values / mean if mean > 0 else values
    return scaled


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode, and attention and LSTMs by their plain formulas, which can be recorded and derived
    twice.
    """
    with evaluating(model), math_attention(), unfused_recurrence(model):
        yield


@contextmanager
def unfused_recurrence(model: nn.Module) -> Iterator[None]:
    """Recurrent layers step by step: oneDNN and cuDNN have one operation for a whole layer, which
    hides its weights, and cuDNN's derives in train mode alone.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    if not layers:
        yield
        return
    # Only for models that have one: oneDNN's convolutions are several times faster than torch's.
    fused = any(isinstance(module, nn.LSTM) for module in layers)
    # Not by `flags`, which sets all of oneDNN's switches and warns of those that are not there.
    before = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch._C._set_mkldnn_enabled(before[0] and not fused)
    torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before[0])
        torch._C._set_cudnn_enabled(before[1])


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
