"""What every model is: a network, a loss, and a way from outputs to detections."""

from dataclasses import dataclass, field, fields, is_dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.data.tables import empty_detections
from tal_lib.errors import TalError
from tal_lib.models.parts.candidates import Candidates, PostProcess, combine_streams, suppress
from tal_lib.validation import Checked, unknown_name, validate


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(Checked):
    """Options that every model has.

    A model's own options are further fields, with types that `tal_lib.validation` checks.
    """

    post: PostProcess = field(default_factory=PostProcess)

    def check_models(self) -> None:
        """Check the names of other models among the options, once all models are known.

        Raises:
            TalError: no such model or preset.
        """


def option_names(config: DetectorConfig) -> list[str]:
    """Names that `override` takes: the config's options, then those of its post-processing."""
    return [f.name for f in fields(config)] + [f.name for f in fields(config.post)]


def override(config, **values):
    """A copy of a config with named options replaced, those of its `post` too.

    An option that is a dataclass itself, such as `post`, may be given as a mapping of what changes in it.

    Raises:
        TalError: an unknown name, or a value that the option does not take.
    """
    own_fields = {f.name for f in fields(config)}
    for name in values:
        if name not in option_names(config):
            raise unknown_name(name, option_names(config))
    ours = {name: value for name, value in values.items() if name in own_fields}
    for name, value in ours.items():
        if is_dataclass(nested := getattr(config, name)) and isinstance(value, dict):
            ours[name] = _replaced(nested, value, name)
    chosen = validate(PostProcess, ours.get("post", config.post), name="post")
    post = _replaced(chosen, {k: v for k, v in values.items() if k not in own_fields}, "")
    return replace(config, **ours | {"post": post})


def _replaced(options, values, name):
    for key in values:
        if key not in {f.name for f in fields(options)}:
            raise unknown_name(key, [f.name for f in fields(options)], name=f"option of {name}")
    try:
        return replace(options, **values)
    except TalError as error:
        raise TalError(f"{name}.{error.problem}" if name else error.problem, remedy=error.remedy) from None


class Detector(nn.Module):
    """Base of all models. A subclass gives `forward`, `loss` and `candidates`.

    `forward(features (B, D, T), mask (B, T) or None)` returns a tuple of tensors. It is the network alone,
    which is counted, timed and exported. A mask of None means that every step is valid.
    """

    not_exportable = ""  # why a graph of it cannot be written, where that is so
    separate_classifier = (
        False  # whether its proposals are classified by a stage that is not the published model's
    )
    unordered: tuple[
        tuple[int, ...], ...
    ] = ()  # outputs (B, P, …) that list proposals, in any order: segments, scores, …

    def __init__(self, config: DetectorConfig, input_dim: int, num_classes: int):
        super().__init__()
        self.config = config
        self.input_dim = input_dim
        self.num_classes = num_classes
        self.spec: dict = {}  # name, preset, … as given to build(); enough to build it again
        self.class_names: tuple[str, ...] = ()  # of its outputs, once known

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        """Training losses by name; the one called `total` is minimised."""
        raise NotImplementedError

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        """Candidates of each recording from the network's outputs and the mask (B, T)."""
        raise NotImplementedError

    def combined_candidates(
        self, members: "list[Detector]", outputs: list[tuple[Tensor, ...]], weights: list[float], mask: Tensor
    ) -> list[Candidates]:
        """Merge the candidates of several trained models of this type, one per stream.

        The weights of the streams sum to one.
        """

        return combine_streams(
            [member.candidates(member_outputs, mask) for member, member_outputs in zip(members, outputs)],
            weights,
        )

    def class_agnostic(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        """Proposals of each recording, all of one class: here the candidates, whatever their class."""
        return [
            replace(candidates, labels=torch.zeros_like(candidates.labels))
            for candidates in self.candidates(outputs, mask)
        ]

    def name_classes(self, names: tuple[str, ...]) -> None:
        """Set the names of the classes. A model that reads names accepts other names, and another number, at
        any time."""
        self.class_names = tuple(names)

    @property
    def deployed(self) -> "Detector":
        """What is kept after training: the model itself, or the student of a pair."""
        return self

    def run(self, batch: Batch) -> tuple[Tensor, ...]:
        """The network on a batch, telling it the classes' names, and when nothing is padded."""
        if batch.features.shape[1] != self.input_dim:
            raise TalError(
                f"features have {batch.features.shape[1]} columns, the model takes {self.input_dim}",
                where=f"recording {batch.recordings[0]}",
                remedy="Build the model with input_dim of the benchmark's feature_spec.",
            )
        self.name_classes(batch.classes)
        kind = next(
            (parameter.dtype for parameter in self.parameters()), torch.float32
        )  # a model in bfloat16 takes and gives float32 here
        return in_float32(self(batch.features.to(kind), None if batch.full else batch.mask))

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[pd.DataFrame]:
        """One detections table (`recording, start, end, label, score`; seconds, best first) a recording.

        Runs in evaluation mode: network, decoding and NMS.
        """
        candidates = self._in_evaluation_mode(lambda: self.candidates(self.run(batch), batch.mask))
        return [  # pyright: ignore[reportReturnType]
            self._table(batch, index, recording_candidates, self.config.post)
            for index, recording_candidates in enumerate(candidates)
        ]

    @torch.no_grad()
    def propose(self, batch: Batch, count: int = 100) -> list[pd.DataFrame]:
        """One proposals table per recording, for AR@AN.

        Columns `recording, start, end, score`; at most `count` rows, best first.
        """
        post = replace(self.config.post, max_detections=count)
        candidates = self._in_evaluation_mode(lambda: self.class_agnostic(self.run(batch), batch.mask))
        return [  # pyright: ignore[reportReturnType]
            self._table(batch, index, recording_candidates, post).drop(columns="label")
            for index, recording_candidates in enumerate(candidates)
        ]

    def _in_evaluation_mode(self, call):
        training = self.training
        self.eval()
        try:
            return call()
        finally:
            self.train(training)

    def _table(self, batch, index, candidates, post):
        segments, scores, labels = suppress(candidates, post)
        if not len(scores):
            return empty_detections()
        seconds = batch.to_seconds(index, torch.from_numpy(segments)).numpy().astype(float)
        table = pd.DataFrame(
            {
                "recording": batch.recordings[index],
                "start": seconds[:, 0],
                "end": seconds[:, 1],
                "label": [batch.classes[label] for label in labels],
                "score": scores.astype(float),
            }
        )
        return table[table.end > table.start].reset_index(drop=True)


def in_float32(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs of a network in lower precision as float32; indices and masks as they are."""
    return tuple(output.float() if output.is_floating_point() else output for output in outputs)
