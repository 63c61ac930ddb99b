"""Knowledge distillation: heal by the dense model's answers too, which say more than the labels.

loss = (1 − a) · task + a · T² · KL(softmax(teacher / T) ‖ softmax(student / T)), where T² keeps the gradients of both
terms of one size whatever T is. Hinton et al., 2015, https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruning.errors import ModelError
from pruning.evidence import evaluating
from pruning.types import Batches


@torch.no_grad()
def teacher_logits(teacher: nn.Module, data: Batches) -> Tensor:
    """What the teacher says of every example, in their order: (n, classes) logits, computed once, in eval mode.

    Raises ModelError when its outputs are not one score for each class.
    """
    with evaluating(teacher):
        said = torch.cat([teacher(x) for x, _ in data])
    if said.dim() != 2 or said.shape[1] < 2:
        shape = " × ".join(map(str, said.shape[1:])) or "nothing"
        raise ModelError(
            f"Distillation compares scores of classes, and this model's output for one example is {shape}: set distill to 0."
        )
    return said


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student), the mean over examples. Both (n, classes) logits; 0 where they agree."""
    soft, wanted = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * nn.functional.kl_div(
        soft, wanted, reduction="batchmean", log_target=True
    )
