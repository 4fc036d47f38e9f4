"""Knowledge distillation: a pyramid detector (student) learns from a trained one (teacher) and the
annotations.

The student imitates the teacher's scores at every point, and its segments where they are good. It also
imitates the features of the teacher's pyramid, through a linear layer that is discarded after training. Any
two pyramid detectors with the same levels can be paired.

Source: GAF's `train_KD` (its weights are the defaults). The score loss is the quality focal loss of Li et al.
(NeurIPS 2020), equation 3, with the teacher's score as the quality.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.errors import TalError
from tal_lib.models import Detector
from tal_lib.models.parts.losses import diou
from tal_lib.models.parts.pyramid import PyramidDetector
from tal_lib.segments import interval_iou
from tal_lib.training.state import weights_digest
from tal_lib.validation import Checked, NotNegative, Probability


@dataclass(frozen=True, kw_only=True)
class Distillation(Checked):
    """Weights of the distillation losses that are added to the student's loss."""

    class_weight: NotNegative = 1.0  # cw
    location_weight: NotNegative = 1.0  # lw / 10, like the weights of AFSD's losses here
    feature_weight: NotNegative = 1.0
    # the teacher's segments are imitated where their tIoU with the annotated one is at least this
    piou: Probability = 0.5
    focus: NotNegative = 2.0  # exponent of the difference in scores


class Distilled(Detector):
    """A student in training, together with its teacher; `deployed` is the student alone."""

    def __init__(self, student: PyramidDetector, teacher: PyramidDetector, options: Distillation):
        super().__init__(student.config, student.input_dim, student.num_classes)
        for model in (student, teacher):
            if not isinstance(model, PyramidDetector):
                raise TalError(
                    f"{model.spec.get('name', type(model).__name__)} is not a pyramid detector",
                    remedy="Distil between pyramids.",
                )
        if student.config.ranges != teacher.config.ranges or student.num_classes != teacher.num_classes:
            raise TalError(
                "teacher and student have different levels or classes",
                remedy="Build both with the same `ranges`.",
            )
        self.student, self.options = student, options
        self.spec = student.spec | {"teacher": teacher.spec | {"weights": weights_digest(teacher)}}
        self.adapter = nn.Linear(student.config.width, teacher.config.width)
        self.teacher = [
            teacher.eval().requires_grad_(False)
        ]  # in a list: not a submodule, so not trained, averaged or saved
        self._count, self._features = (
            0,
            (),
        )  # last forward pass: number of the student's outputs, features of both pyramids

    @property
    def deployed(self) -> Detector:
        return self.student

    def name_classes(self, names: tuple[str, ...]) -> None:
        super().name_classes(names)
        self.student.name_classes(names)
        self.teacher[0].name_classes(names)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The student's outputs, then the teacher's."""
        student_outputs, student_levels = with_levels(self.student, features, mask)
        with torch.no_grad():
            teacher_outputs, teacher_levels = with_levels(self.teacher[0].to(features.device), features, mask)
        self._count, self._features = len(student_outputs), (student_levels, teacher_levels)
        return *student_outputs, *teacher_outputs

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        student, teacher, o = self.student, self.teacher[0], self.options
        student_outputs, teacher_outputs = outputs[: self._count], outputs[self._count :]
        losses = student.loss(student_outputs, batch)
        valid = student.level_mask(batch.mask)
        score = (
            score_loss(
                student.probabilities(student_outputs)[valid],
                teacher.probabilities(teacher_outputs)[valid],
                o.focus,
            )
            / student.positives
        )
        location = self.location_loss(student_outputs, teacher_outputs, valid, batch)
        student_levels, teacher_levels = (
            levels.reshape(*valid.shape, -1)[valid].float()
            for levels in self._features  # clips end to end
        )
        feature = (1 - F.cosine_similarity(self.adapter(student_levels), teacher_levels, dim=-1)).mean()
        losses["total"] = (
            losses["total"]
            + o.class_weight * score
            + o.location_weight * location
            + o.feature_weight * feature
        )
        return losses | {"score": score.detach(), "location": location.detach(), "feature": feature.detach()}

    def location_loss(self, student_outputs, teacher_outputs, valid, batch) -> Tensor:
        """DIoU loss between the student's and the teacher's segments, at positive points where the teacher's
        segment is good enough."""
        points = self.student.points(batch.mask.shape[1])
        classes, segments, positive = self.student.assign(student_outputs, points, valid, batch)
        at = self.student.positives_of(classes, positive & valid)
        teacher_segments = self.teacher[0].decode(teacher_outputs, points, at)
        good = interval_iou(teacher_segments, segments[at.batch, at.row]) >= self.options.piou
        return (
            diou(self.student.decode(student_outputs, points, at), teacher_segments) * good
        ).sum() / self.student.positives


def with_levels(
    model: PyramidDetector, features: Tensor, mask: Tensor | None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """A model's outputs, and the concatenated levels (B, P, C) that enter its class tower."""
    seen = []
    hook = model.class_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        return model(features, mask), seen[0]
    finally:
        hook.remove()


def score_loss(p: Tensor, target: Tensor, focus: float) -> Tensor:
    """Σ |target − p|^focus · binary cross-entropy of p with soft targets; any shape, both in [0, 1]."""
    p = p.clamp(1e-6, 1 - 1e-6)
    return ((target - p).abs() ** focus * F.binary_cross_entropy(p, target, reduction="none")).sum()
