"""Knowledge distillation: fine-tune by the dense model's logits too, not the labels alone.

loss = (1 − a) · task + a · T² · KL(softmax(teacher / T) ‖ softmax(student / T)), where T² keeps the
gradients of both terms of one size whatever T is. Hinton et al., 2015,
https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruning.errors import ModelError
from pruning.evidence import evaluating
from pruning.types import Batches


@torch.no_grad()
def teacher_logits(teacher: nn.Module, data: Batches) -> Tensor:
    """The teacher's logits for every example in order, (n, classes), in eval mode.

    Computed once: the teacher does not change. Raises ModelError when its outputs are not one score
    for each class.
    """
    with evaluating(teacher):
        logits = torch.cat([teacher(x) for x, _ in data])
    if logits.dim() != 2 or logits.shape[1] < 2:
        shape = " × ".join(map(str, logits.shape[1:])) or "nothing"
        raise ModelError(
            "Distillation compares scores of classes, and this model's output "
            f"for one example is {shape}: set distill to 0."
        )
    return logits


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student), the mean over examples: 0 where they agree.

    student, teacher: (n, classes) logits.
    """
    student_log = (student / temperature).log_softmax(1)
    teacher_log = (teacher / temperature).log_softmax(1)
    # torch's "mean" would divide by the classes too
    divergence = nn.functional.kl_div(
        student_log, teacher_log, reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence
