"""Late fusion: one trained model per stream; their scores are averaged before suppression.

Models whose candidates lie at the same places (points of a pyramid, cells, windows) are averaged there. For
other models, every candidate of a stream with a positive weight is kept. Its score is the weighted mean of
the streams' support. The support of its own stream is its score. The support of another stream is the maximum
of score × tIoU over that stream's candidates of the same class.

Source of averaging before NMS: AFSD (CVPR 2021), section 4.1. The support rule is this project's.
"""

from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.errors import TalError
from tal_lib.models.parts.candidates import Candidates, combine_streams
from tal_lib.models.parts.detector import Detector
from tal_lib.validation import NotNegative, validate


class LateFusion(Detector):
    """Several trained detectors of one type, each on the columns of its stream.

    Args:
        members: stream name → model; columns: stream name → slice of the features.
        weights: stream name → weight (equal if None).

    forward: the outputs of the members, one after the other.
    """

    def __init__(
        self, members: dict[str, Detector], columns: dict[str, slice], weights: dict[str, float] | None = None
    ):
        first = next(iter(members.values()))
        super().__init__(first.config, max(part.stop for part in columns.values()), first.num_classes)
        weights = checked_weights(weights, members)
        if len({type(member) for member in members.values()}) > 1:
            raise TalError(
                "late fusion needs models of the same kind", remedy="Train the same model on every stream."
            )
        self.members = nn.ModuleDict(members)
        self.columns, self.weights = columns, weights

    def name_classes(self, names: tuple[str, ...]) -> None:
        super().name_classes(names)
        for member in self.members.values():
            member.name_classes(names)  # pyright: ignore[reportCallIssue]
            self.num_classes = member.num_classes

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        every = [member(features[:, self.columns[name]], mask) for name, member in self.members.items()]
        return tuple(output for outputs in every for output in outputs)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        raise TalError("a late fusion cannot be trained", remedy="Train each member on its stream.")

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        each, shares = self._apart(outputs)
        members = list(self.members.values())
        return members[0].combined_candidates(members, each, shares, mask)  # pyright: ignore[reportCallIssue]

    def class_agnostic(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        each, shares = self._apart(outputs)
        return combine_streams(
            [
                member.class_agnostic(member_outputs, mask)  # pyright: ignore[reportCallIssue]
                for member, member_outputs in zip(self.members.values(), each)
            ],
            shares,
        )

    def _apart(self, outputs):
        """Each member's outputs, and the members' shares of the score."""
        count, total = len(outputs) // len(self.members), sum(self.weights.values())
        return (
            [outputs[i : i + count] for i in range(0, len(outputs), count)],
            [self.weights[name] / total for name in self.members],
        )


def checked_weights(weights: dict[str, float] | None, streams) -> dict[str, float]:
    """The weights of the streams, equal if none are given.

    Raises:
        TalError: a stream without a weight, a negative weight, or no positive one.
    """
    weights = weights or dict.fromkeys(streams, 1.0)
    checked = validate(dict[str, NotNegative], weights, name="weights")
    if set(checked) != set(streams) or sum(checked.values()) <= 0:
        raise TalError(
            f"weights {weights} for the streams {', '.join(streams)}",
            remedy="Give each stream a weight of at least 0.",
        )
    return checked
