"""Knowledge distillation: fine-tune by the dense model's logits too, not the labels alone.

loss = (1 − a) · task + a · T² · KL(softmax(teacher / T) ‖ softmax(student / T)), where T² keeps the
gradients of both terms of one size whatever T is. Hinton et al., 2015,
https://arxiv.org/abs/1503.02531. Where outputs are no scores of classes (regression, several
labels), their mean squared distance takes the place of the divergence, as between logits in Ba &
Caruana, 2014, https://arxiv.org/abs/1312.6184
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.types import Batches


@torch.no_grad()
def teacher_logits(teacher: nn.Module, data: Batches) -> Tensor:
    """The teacher's outputs for every example in order, (n, ...), in eval mode, on the CPU.

    Computed once: the teacher does not change.
    """
    with evaluating(teacher):
        return torch.cat([teacher(x).cpu() for x, _ in data])


def distillation_loss(
    student: Tensor, teacher: Tensor, temperature: float, classes: int | None = 1
) -> Tensor:
    """T² · KL(teacher ‖ student), the mean over examples: 0 where they agree.

    student, teacher: (n, ...) logits; classes: the dimension that holds those of one answer (each
    pixel or token has its own, and their mean is taken); None: outputs are no scores of classes,
    and their mean squared distance is given.
    """
    if classes is None:
        return nn.functional.mse_loss(student, teacher)
    if student.dim() > 2:
        student = student.movedim(classes, -1).flatten(0, -2)
        teacher = teacher.movedim(classes, -1).flatten(0, -2)
    student_log = (student / temperature).log_softmax(1)
    teacher_log = (teacher / temperature).log_softmax(1)
    # torch's "mean" would divide by the classes too
    divergence = nn.functional.kl_div(
        student_log, teacher_log, reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence
