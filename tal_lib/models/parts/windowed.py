"""Inference in windows: the detector never sees more than a window at once, so its memory is bounded."""

from dataclasses import replace

import torch
from torch import Tensor

from tal_lib.errors import TalError
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.detector import Detector
from tal_lib.models.parts.proposals import cut, window_starts


class InWindows(Detector):
    """A trained detector over overlapping windows; one NMS merges the candidates of all windows.

    A segment that a window cuts is complete in a neighbour only if the two overlap by its length. A recording
    that fits into one window runs as it is.

    Args:
        window, overlap: steps; at_once: windows in one pass of the network.
    """

    def __init__(self, model: Detector, window: int, overlap: int, at_once: int = 8):
        if not 0 <= overlap < window:
            raise TalError(f"window={window}, overlap={overlap}", remedy="Keep 0 <= overlap < window.")
        super().__init__(model.config, model.input_dim, model.num_classes)
        self.model, self.window, self.overlap, self.at_once, self.spec = (
            model,
            window,
            overlap,
            at_once,
            model.spec,
        )

    def name_classes(self, names: tuple[str, ...]) -> None:
        super().name_classes(names)
        self.model.name_classes(names)

    def _cut(self, x_BTC):
        starts = window_starts(x_BTC.shape[1], self.window, self.overlap)
        return cut(x_BTC, starts, self.window, self.overlap), starts

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The model's outputs of all windows, recording by recording."""
        steps = features.shape[2]
        if steps <= self.window:
            return self.model(features, mask)
        windows, starts = self._cut(features.transpose(1, 2))
        valid = torch.ones_like(features[:, 0], dtype=torch.bool) if mask is None else mask
        inside = self._cut(valid[..., None].to(features.dtype))[0][..., 0] > 0.5
        parts = []
        for at in range(0, len(windows), self.at_once):
            seen = inside[at : at + self.at_once]
            parts.append(
                self.model(
                    windows[at : at + self.at_once].transpose(1, 2), None if bool(seen.all()) else seen
                )
            )
        return tuple(torch.cat(output) for output in zip(*parts))

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        return self._joined(self.model.candidates, outputs, mask)

    def class_agnostic(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        return self._joined(self.model.class_agnostic, outputs, mask)

    def _joined(self, find, outputs, mask):
        if mask.shape[1] <= self.window:
            return find(outputs, mask)
        windows, starts = self._cut(mask[..., None].float())
        candidates = find(outputs, windows[..., 0] > 0.5)
        shifted = [
            replace(part, segments=part.segments + int(starts[index % len(starts)]))
            for index, part in enumerate(candidates)
        ]
        # windows that a recording alone would not have, because another of the batch is longer, are left out
        window_counts = [
            len(window_starts(steps, self.window, self.overlap)) for steps in mask.sum(1).tolist()
        ]
        groups = [
            shifted[index * len(starts) : index * len(starts) + count]
            for index, count in enumerate(window_counts)
        ]
        return [
            Candidates(
                *(
                    torch.cat([getattr(part, name) for part in group])
                    for name in ("segments", "scores", "labels")
                )
            )
            for group in groups
        ]
