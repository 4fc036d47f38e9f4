"""A smoke test of one model on a device: does it run there, and does it compute the same as on the CPU?

    check_model("tridet", "cuda")     # a table: check, ok, largest_difference, seconds, problem

The reference is the same model with the same weights on the CPU, in float32; TF32 is off on the device. A
check that raises an error is a row with `ok` False, and the next check runs.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from tal_lib.cost.meters import use_device
from tal_lib.data.batches import Batch, Item, collate
from tal_lib.errors import one_line
from tal_lib.export import Deployed, example_batch, parity, rounding, traced_program
from tal_lib.models import Detector, build, config
from tal_lib.models.parts.blocks import DropPath
from tal_lib.process.precision import allow_tf32
from tal_lib.provenance import checked_device
from tal_lib.training import recipe_for
from tal_lib.training.loop import AUTOCAST, make_optimizer, make_scaler, training_step

INPUT_DIM, CLASSES, STEPS = 48, ("a", "b", "c"), 256
SIZES = ((1, 97), (2, 640))  # recordings and steps of the compared outputs
CLOSE = 1e-3  # largest relative difference of outputs, unless float32 itself rounds by more
CLOSE_GRADIENTS = 1e-2  # relative, of the vector of all gradients
CLOSE_LOSS = 0.1  # relative, of the loss in mixed precision from the loss in float32
COMPARED = 50  # of the best detections


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row. `largest_difference` is relative; None: nothing was compared."""

    check: str
    ok: bool
    largest_difference: float | None = None
    problem: str = ""  # what went wrong, or why nothing was compared
    seconds: float = 0.0


def check_model(name: str, device: str, *, preset: str = "compact", only: tuple[str, ...] = ()) -> list[dict]:
    """Check a model on a device; one row per check, in order.

    forward      outputs (with decoding where the graph has it) on two sizes, equal to the CPU's
    detect       scores of the best detections, equal to the CPU's
    backward     gradients of a training batch, equal to the CPU's; finite where random numbers are drawn
    bfloat16, float16   two training steps in mixed precision; their first loss is near that of float32
    export       the model traced on the device; the graph's outputs are equal to the CPU's

    Args:
        only: names of the checks to run; all if empty.

    Raises:
        TalError: an unknown model, or a device that this machine lacks.
    """
    use_device(checked_device(device))
    allow_tf32(False)
    torch.manual_seed(0)
    words = (
        {"text": "words"} if hasattr(config(name, preset), "text") else {}
    )  # no pretrained encoder is needed
    model = build(name, input_dim=INPUT_DIM, num_classes=len(CLASSES), preset=preset, **words)
    model.name_classes(CLASSES)
    checks = {"forward": _forward, "detect": _detect, "backward": _backward}
    checks |= {precision: _mixed(precision) for precision in AUTOCAST} | {"export": _export}
    rows = [
        _checked(check, run, copy.deepcopy(model), device)
        for check, run in checks.items()
        if not only or check in only
    ]
    return [asdict(row) for row in rows]


def _checked(name, run: Callable[[Detector, str], Check], model, device) -> Check:
    began = time.perf_counter()
    try:
        row = run(model, device)
        if device.startswith("cuda"):
            torch.cuda.synchronize()  # an error of a kernel belongs to its check
    except Exception as error:
        row = Check(check=name, ok=False, problem=one_line(f"{type(error).__name__}: {error}")[:300])
    return replace(row, seconds=time.perf_counter() - began)


def _compared(check, difference, limit) -> Check:
    ok = difference <= limit  # not so for NaN
    problem = "" if ok else f"differs from the CPU by {difference:.2g}"
    return Check(check=check, ok=ok, largest_difference=difference, problem=problem)


def _parity(check, deployed, run) -> Check:
    """Compare the outputs of `run(features, mask)` on tensors of the CPU with those of a model there."""
    with torch.no_grad():
        graph = lambda *arrays: [output.cpu() for output in run(*map(torch.from_numpy, arrays))]
        difference = parity(deployed, graph, SIZES)
        limit = CLOSE if difference <= CLOSE else max(CLOSE, 4 * rounding(deployed, SIZES))
    return _compared(check, difference, limit)


def _forward(model, device):
    there = Deployed(copy.deepcopy(model)).to(device).eval()
    run = lambda features, mask: there(features.to(device), mask.to(device))
    return _parity("forward", Deployed(model).eval(), run)


def _export(model, device):
    if model.not_exportable:
        return Check(check="export", ok=True, problem=f"not exportable: {model.not_exportable}")
    here, there = Deployed(model).eval(), Deployed(copy.deepcopy(model)).to(device).eval()
    example = tuple(part.to(device) for part in example_batch(there, 2, 1203))
    graph = traced_program(there, example).module(check_guards=False)  # as `tal_lib.exported` loads it
    return _parity("export", here, lambda features, mask: graph(features.to(device), mask.to(device)))


def _detect(model, device):
    batch = _batch(1)
    scores = [model.detect(batch)[0].score, model.to(device).detect(batch.to(device))[0].score]
    count = min(COMPARED, *map(len, scores))
    if bool(len(scores[0])) != bool(len(scores[1])):
        return Check(
            check="detect", ok=False, problem=f"{len(scores[1])} detections, {len(scores[0])} on the CPU"
        )
    here, there = (part.to_numpy()[:count] for part in scores)
    difference = float((abs(here - there) / (1 + abs(here))).max()) if count else 0.0
    return _compared("detect", difference, CLOSE)


def _backward(model, device):
    """Gradients, without dropout. A CPU and a GPU draw different random numbers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.rate = 0.0
    before = torch.get_rng_state()
    other = copy.deepcopy(model)  # before the first loss, which moves a running mean
    here = _gradients(model, "cpu")
    random = not torch.equal(before, torch.get_rng_state())
    there = _gradients(other, device)
    if random:
        ok = bool(torch.isfinite(there).all())
        return Check(check="backward", ok=ok, problem="random" if ok else "gradients are not finite")
    difference = float((there - here).norm() / here.norm().clamp_min(1e-12))
    return _compared("backward", difference, CLOSE_GRADIENTS)


def _gradients(model, device):
    """All gradients of one batch as one vector on the CPU, in float64."""
    model, batch = model.to(device).train(), _batch(2).to(device)
    model.zero_grad()
    model.loss(model.run(batch), batch)["total"].backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([grad.detach().cpu().double().flatten() for grad in grads])


def _mixed(precision):
    def check(model, device):
        recipe = recipe_for(model.spec["name"], model.spec["preset"])
        losses = {}
        for kind in ("float32", precision):
            torch.manual_seed(0)
            trained, plan = copy.deepcopy(model).to(device).train(), replace(recipe, precision=kind)
            optimizer, scaler = make_optimizer(trained, plan), make_scaler(plan, device)
            batch = _batch(2).to(device)
            steps = [training_step(trained, batch, optimizer, plan, scaler) for _ in range(2)]
            losses[kind] = float(steps[0]["total"].detach())
        difference = abs(losses[precision] - losses["float32"]) / (1 + abs(losses["float32"]))
        return _compared(precision, difference, CLOSE_LOSS)

    return check


def _batch(recordings: int) -> Batch:
    """Recordings of random features with two segments each; the last is shorter, so that there is padding."""
    generator = torch.Generator().manual_seed(recordings)
    items = []
    for number in range(recordings):
        steps = STEPS - 32 * number
        items.append(
            Item(
                recording=f"r{number}",
                features=torch.randn(INPUT_DIM, steps, generator=generator),
                duration=float(steps),
                stride_s=1.0,
                window_s=1.0,
                classes=CLASSES,
                segments=torch.tensor([[10.0, 30.0], [60.0, 140.0]]),
                labels=torch.tensor([number % len(CLASSES), 1]),
            )
        )
    return collate(items)
