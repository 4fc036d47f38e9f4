"""Inference on features that arrive in parts: memory does not grow with the recording's length.

The detector sees windows of a fixed number of steps. There are two ways to join what the windows give:

- `joined`: the outputs of the network. Each window gives the points that are at least `margin` steps away
  from where it was cut, so windows overlap by twice the margin. If no output depends on features farther away
  than the margin, the joined outputs are those of the whole recording, and so are the detections. It needs
  outputs at fixed points of time: models of `PyramidDetector` and `DenseDetector`.
- `merged`: the candidates, as `InWindows` does: one NMS over the candidates of all windows. It works for
  every model. The result differs from that of the whole recording near the cuts, and everywhere for a model
  with global context.

`MARGINS` says for which models joining is right, `WHY_NOT` why it is not for the others.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import lcm

import pandas as pd
import torch
from torch import Tensor

from tal_lib.data.batches import Batch
from tal_lib.errors import TalError
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.conv import ceil_div
from tal_lib.models.parts.dense import DenseDetector
from tal_lib.models.parts.detector import Detector, in_float32
from tal_lib.models.parts.pyramid import PyramidDetector
from tal_lib.validation import unknown_name

# Steps on each side that a window adds, at least. No output depends on features farther away: options that
# make it see more widen the margin (`_margin`), or end the equality (`_option_that_sees_all`).
MARGINS = {
    "window_cnn": 32,
    "bilstm": 64,
    "temporalmaxer": 192,
    "actionformer": 512,
    "text_pyramid": 512,
}
_INSTANCE = "instance norm over the recording"
WHY_NOT = {
    "local_global": _INSTANCE,
    "tridet": "the mean over the recording in each block",
    "action_mamba": "a recurrence over the whole recording",
    "afsd": "group norm over the recording",
    "gaf": "group norm and attention over the recording",
    "tadtr": "slices with a fixed number of queries each",
    "ssn": "proposals are grouped and ranked over the recording",
    "tcanet": "proposals are ranked over the recording",
    "bsn": "proposals near a cut; its windows are those of the whole recording",
    "bmn": "proposals near a cut; its windows are those of the whole recording",
    "prn": "proposals near a cut; its windows are those of the whole recording",
    "stale": "its windows are embedded with their neighbourhood, which a cut ends",
}
WINDOW = 2304  # steps
MERGED_OVERLAP = 256  # steps; segments up to this length are complete in one window


@dataclass(frozen=True)
class Windows:
    """How a recording is cut. `why`: why the answer is not that of the whole recording; empty if it is."""

    window: int
    overlap: int
    why: str = ""

    @property
    def joined(self) -> bool:
        """Whether the network's outputs are joined; otherwise the candidates are merged."""
        return not self.why


def windows_for(model: Detector, window: int = WINDOW) -> Windows:
    """The windows for a model: joined where that gives the answer of the whole recording.

    Args:
        window: steps; rounded up to a multiple of the model's grid, and to twice the overlap.
    """
    name, align = model.spec.get("name", type(model).__name__), _alignment(model)
    margin = _margin(model, name)
    why = "" if margin else WHY_NOT.get(name, "not checked for this model")
    if name == "local_global" and model.config.latents:  # pyright: ignore[reportAttributeAccessIssue]
        why = f"global attention and {why}"
    if margin and (reason := _option_that_sees_all(model.config)):
        why = reason
    # a proposal model has windows of its own: with their overlap, each of them is run once
    overlap = getattr(model.config, "overlap", MERGED_OVERLAP) if why else 2 * ceil_div(margin, align) * align
    return Windows(ceil_div(max(window, 2 * overlap), align) * align, ceil_div(overlap, align) * align, why)


def _margin(model, name):
    """The margin of a model with its options; 0 if its outputs cannot be joined."""
    margin, config = MARGINS.get(name, 0), model.config
    if not margin:
        return 0
    if isinstance(model, DenseDetector):
        block = getattr(config, "sequence", 0) + getattr(config, "context", 0)
        return max(margin, model.cell_width() + model.cell_stride(), block)
    return max(margin, _reach(config))


def _reach(config):
    """Steps on each side that the outputs of a pyramid depend on: by embedding, stem, levels and heads."""
    top = 2 ** (len(config.ranges) - 1)  # stride of the coarsest level
    seen = getattr(config, "window", 0) // 2  # by attention
    embedding = config.embedding_kernel // 2 + config.embedding_layers - 1
    stem = config.stem_blocks * (1 + seen) if hasattr(config, "window") else 0  # blocks have attention
    return embedding + stem + (top - 1) * (1 + 2 * seen) + (config.head_layers + 1) * top


def _option_that_sees_all(config):
    """The option by which outputs depend on the place in the recording, or on all of it; empty: none."""
    if getattr(config, "norm", "layer") != "layer":
        return _INSTANCE
    if getattr(config, "neck_norm", "none") == "group":
        return "group norm over the recording"
    if getattr(config, "global_levels", 0):
        return "global attention in the coarsest levels"
    if getattr(config, "padding", "none") == "authors":
        return "padding as the authors do it"
    return "positions in the recording" if getattr(config, "position_steps", 0) else ""


def _alignment(model):
    """Steps after which the grid of the outputs repeats."""
    if isinstance(model, PyramidDetector):
        return 2 ** (len(model.config.ranges) - 1)
    if isinstance(model, DenseDetector):
        return lcm(model.cell_stride(), getattr(model.config, "sequence", 1))
    # proposal models cut the recording themselves
    config = model.config
    cuts = hasattr(config, "overlap") and hasattr(config, "window")
    return max(1, config.window - config.overlap) if cuts else 1


class Streamed:
    """A detector that takes the features of one recording in parts.

    Args:
        windows: by default those of `windows_for`.
        timed: context manager that times `network` and `decode and NMS`.
    """

    def __init__(
        self,
        model: Detector,
        classes: tuple[str, ...],
        windows: Windows | None = None,
        *,
        timed: Callable[[str], AbstractContextManager] = lambda part: nullcontext(),
    ):
        self.model, self.classes, self.timed = model.eval(), tuple(classes), timed
        self.windows = windows or windows_for(model)
        window, overlap = self.windows.window, self.windows.overlap
        if not 0 <= overlap < window:
            raise TalError(f"window={window}, overlap={overlap}", remedy="Keep 0 <= overlap < window.")
        if self.windows.joined and not isinstance(model, PyramidDetector | DenseDetector):
            raise unknown_name(
                type(model).__name__, sorted(MARGINS), name="model whose outputs can be joined"
            )
        model.name_classes(self.classes)
        self.rows: list[Tensor] = []  # steps (D,) that wait, at most a window
        self.first = 0  # step of the recording at which they begin
        self.sizes: list[int] = []  # steps of each window that was run
        self.outputs: list[list[tuple[Tensor, ...]]] = []  # joined: windows → levels → outputs
        self.parts: list[Candidates] = []  # merged: windows → candidates

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.first + len(self.rows)

    def push(self, step) -> None:
        """Take one step (D,), an array or a tensor."""
        if len(self.rows) == self.windows.window:
            self._run(last=False)
            keep = self.windows.overlap
            self.first += len(self.rows) - keep
            self.rows = self.rows[len(self.rows) - keep :]
        self.rows.append(torch.as_tensor(step, dtype=torch.float32))

    def finish(self, recording: str, duration_s: float, stride_s: float, window_s: float) -> pd.DataFrame:
        """The detections of the recording, as `Detector.detect` gives them."""
        if not self.rows:
            raise TalError("no feature step", where=recording, remedy="Give at least one.")
        self._run(last=True)
        with self.timed("decode and NMS"), torch.inference_mode():
            mask = torch.ones(1, self.steps, dtype=torch.bool)
            if self.windows.joined:
                candidates = self.model.candidates(self._joined(), mask)[0]
            else:
                names = ("segments", "scores", "labels")
                candidates = Candidates(
                    *(torch.cat([getattr(part, name) for part in self.parts]) for name in names)
                )
            batch = Batch(
                recordings=(recording,),
                features=torch.empty(1, self.model.input_dim, 0),
                mask=mask,
                durations=torch.tensor([float(duration_s)]),
                stride_s=torch.tensor([float(stride_s)]),
                window_s=torch.tensor([float(window_s)]),
                classes=self.classes,
            )
            return self.model._table(batch, 0, candidates, self.model.config.post)  # pyright: ignore

    @torch.inference_mode()
    def _run(self, last):
        """Run the network on the steps that wait, and keep what counts of its outputs."""
        features, size = torch.stack(self.rows, 1)[None], len(self.rows)
        self.sizes.append(size)
        with self.timed("network"):
            kind = next((parameter.dtype for parameter in self.model.parameters()), torch.float32)
            outputs = in_float32(self.model(features.to(kind), None))
        with self.timed("decode and NMS"):
            if self.windows.joined:
                self.outputs.append(self._inner(outputs, size, last))
            else:
                part = self.model.candidates(outputs, torch.ones(1, size, dtype=torch.bool))[0]
                self.parts.append(replace(part, segments=part.segments + self.first))

    def _inner(self, outputs, size, last):
        """Levels → the outputs of the points that this window gives, copied."""
        margin = self.windows.overlap // 2
        begin, end = (margin if self.first else 0), size - margin
        levels, at = [], 0
        for count, stride in _grid(self.model, size):
            inner = slice(at + begin // stride, at + (count if last else end // stride))
            levels.append(tuple(output[:, inner].clone() for output in outputs))
            at += count
        if any(output.shape[1] != at for output in outputs):
            raise TalError(f"the outputs of {type(self.model).__name__} do not have one row per point")
        return levels

    def _joined(self):
        """The outputs of the whole recording."""
        levels = [
            [torch.cat(parts, 1) for parts in zip(*windows)]
            for windows in zip(*self.outputs)  # a level of all windows
        ]
        return tuple(torch.cat(parts, 1) for parts in zip(*levels))


def _grid(model, steps):
    """(points, steps between them) of each level, in the order of the outputs' rows."""
    if isinstance(model, PyramidDetector):
        return [(count, 2**level) for level, count in enumerate(model.points(steps).level_sizes)]
    return [(model.cells(steps), model.cell_stride())]
