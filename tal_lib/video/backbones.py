"""Backbones: they turn pictures into features. A backbone is chosen by name, with or without learned weights.

A backbone describes every frame. `pool` turns the descriptions of a window of frames into one feature step.
Weights come from the Hugging Face hub and stay in its cache. `hog-hof` needs no weights; those of
`efficientnet-lite0` come from a package. Random weights need no download: they serve to measure the cost.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

from tal_lib.data import shipped
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.provenance import usable_cores
from tal_lib.video import hog_hof

WINDOW = 16  # frames
CHUNK = 8  # pictures that a thread describes at a time
HOG_HOF = {"hog": hog_hof.HOG, "hof": hog_hof.HOF}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NETWORKS = {  # name: (kind, name on the hub or in its package, columns, pixels, (mean, standard deviation))
    "efficientnet-lite0": ("lite", "efficientnet-lite0", 1280, 224, LITE),
    "resnet50": ("transformers", "microsoft/resnet-50", 2048, 224, IMAGENET),
    "clip-vit-b32": ("clip", "openai/clip-vit-base-patch32", 512, 224, CLIP),
    "dinov2-small": ("transformers", "facebook/dinov2-small", 384, 224, IMAGENET),
    "inception_resnet_v2": ("timm", "inception_resnet_v2", 1536, 299, HALF),
}


@dataclass(frozen=True)
class PictureNetwork:
    """The network of a backbone: `call` takes pictures (n, 3, pixels, pixels) and runs `module`."""

    module: "torch.nn.Module"
    call: "Callable[[torch.Tensor], torch.Tensor]"
    pixels: int


@dataclass(frozen=True)
class Backbone:
    """Describes pictures.

    describe: takes pictures (n, H, W, 3), RGB, uint8, and the picture before them (None at the start). It
    returns (n, D), where D is the sum of `streams`.

    prepare: reduces one picture to what `describe` looks at, so that waiting pictures need little memory.
    `describe` takes prepared pictures too, with the same result.
    """

    name: str
    streams: Mapping[str, int]
    size: tuple[int, int] | None  # (width, height) of the decoded frames; None keeps their size
    describe: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    prepare: Callable[[np.ndarray], np.ndarray] = lambda picture: picture
    # prepared pictures (n, 3, H, W) that the network sees → descriptions, for its cost; None: no network
    network: PictureNetwork | None = None

    def pool(self, described: np.ndarray) -> np.ndarray:
        """Descriptions of a window's frames (n, D) → one step (D,)."""
        return described.mean(0)


def backbones() -> list[str]:
    """Names of all backbones."""
    return ["hog-hof", *NETWORKS]


def backbone(name: str, *, trained: bool = True) -> Backbone:
    """A backbone that is ready to describe pictures.

    Args:
        name: a name from `backbones()`, or `transformers:WHERE` or `clip:WHERE`. WHERE is a hub name or a
            folder.
        trained: with its learned weights. Otherwise a network has random weights, which need no download:
            its features mean nothing, its cost is the same.

    Raises:
        TalError: the name is unknown, a library is missing, or the weights are neither cached nor reachable.
    """
    if name == "hog-hof":
        return Backbone(
            name, HOG_HOF, (4 * hog_hof.WIDTH, 4 * hog_hof.HEIGHT), _hog_hof, prepare=hog_hof.gray
        )
    kind, colon, where = name.partition(":")
    if colon and kind in ("transformers", "clip") and where:
        network, dim = _load(name, kind, where)
        return _of_network(name, kind, network, dim, 224, CLIP if kind == "clip" else IMAGENET)
    if name not in NETWORKS:
        raise TalError(f"unknown backbone {name!r}", remedy=f"Choose from {', '.join(backbones())}.")
    kind, where, dim, pixels, scale = NETWORKS[name]
    network = _load(name, kind, where)[0] if trained or kind == "lite" else _untrained(name, kind)
    return _of_network(name, kind, network, dim, pixels, scale)


def backbone_for(spec: FeatureSpec) -> Backbone:
    """The backbone whose streams match a feature spec, so that a model gets the features it was trained on.

    Raises:
        TalError: no backbone has these streams.
    """
    streams = {"hog-hof": HOG_HOF} | {name: {name: known[2]} for name, known in NETWORKS.items()}
    for name, dimensions in streams.items():
        if dict(spec.streams) == dimensions:
            return backbone(name)
    raise TalError(
        f"no backbone has the streams {dict(spec.streams)} of the model", remedy="Name it with --backbone."
    )


def _hog_hof(pictures, before):
    images = np.stack([hog_hof.gray(picture) for picture in pictures])
    first = images[:1] if before is None else hog_hof.gray(before)[None]
    earlier = np.concatenate([first, images[:-1]])
    split = [(earlier[at : at + CHUNK], images[at : at + CHUNK]) for at in range(0, len(images), CHUNK)]
    if len(split) == 1:
        return _described(*split[0])
    return np.concatenate(list(_threads().map(_described, *zip(*split))))


def _described(earlier, images):
    return np.concatenate([hog_hof.hog(images), hog_hof.hof(earlier, images)], 1)


@cache
def _threads():
    """Threads for optical flow, which runs outside the interpreter's lock."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="hog-hof")


def _load(name, kind, where):
    """(network, number of feature columns)."""
    if kind == "lite":
        return _efficientnet_lite(where), 1280
    try:
        if kind == "timm":
            import timm

            network = timm.create_model(where, pretrained=True, num_classes=0)
            return network.eval(), network.num_features
        import transformers

        if kind == "clip":
            network = transformers.CLIPVisionModelWithProjection.from_pretrained(where)
            return network.eval(), network.config.projection_dim
        network = transformers.AutoModel.from_pretrained(where, trust_remote_code=False)
        sizes = getattr(network.config, "hidden_sizes", None)
        return network.eval(), sizes[-1] if sizes else network.config.hidden_size
    except ImportError as error:
        raise _not_installed(name, kind, error) from None
    except Exception as error:  # the hub raises many: offline, unknown name, damaged files
        raise TalError(
            f"weights of backbone {name} are neither cached nor reachable ({type(error).__name__})",
            where=where,
            remedy="Fetch them once with a connection, or use --backbone hog-hof.",
        ) from None


def _untrained(name, kind):
    """A network of the same architecture with random weights."""
    if name == "inception_resnet_v2":
        from tal_lib.video.inception_resnet import InceptionResNetV2

        return InceptionResNetV2().eval()
    try:
        import transformers

        kind, config = {
            "resnet50": ("ResNetModel", "ResNetConfig"),
            "clip-vit-b32": ("CLIPVisionModelWithProjection", "CLIPVisionConfig"),
            "dinov2-small": ("Dinov2Model", "Dinov2Config"),
        }[name]
        small = {"hidden_size": 384, "num_attention_heads": 6} if name == "dinov2-small" else {}
        return getattr(transformers, kind)(getattr(transformers, config)(**small)).eval()
    except ImportError as error:
        raise _not_installed(name, kind, error) from None


def _not_installed(name, kind, error):
    return TalError(
        f"backbone {name} needs {error.name or 'a library'} that is not installed",
        remedy="pip install "
        f"{'timm' if kind == 'timm' else 'efficient-tal[text]'}, or use --backbone hog-hof.",
    )


def _efficientnet_lite(name):
    """EfficientNet-Lite (Tan and Le, ICML 2019, without squeeze-excitation), trained on ImageNet."""
    import torch

    path = shipped.EFFICIENTNET_LITE0.need(f"backbone {name}")
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise TalError(
            f"backbone {name} needs the package efficientnet-lite-pytorch", remedy=f"Run: {shipped.EXTRA}"
        ) from None
    network = EfficientNet.from_name(name)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _of_network(name, kind, network, dim, pixels, scale):
    import torch

    mean, deviation = (torch.tensor(part).view(1, 3, 1, 1) for part in scale)

    def call(x):
        if kind == "timm":
            return network(x)
        if kind == "lite":
            return network.extract_features(x).mean((2, 3))
        if kind == "clip":
            return network(pixel_values=x).image_embeds
        return network(pixel_values=x).pooler_output.flatten(1)

    @torch.inference_mode()
    def describe(pictures, before):
        squares = np.stack([_square(picture, pixels) for picture in pictures])
        x = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        return call((x - mean) / deviation).numpy()

    stream = name if name in NETWORKS else kind
    return Backbone(
        name,
        {stream: dim},
        None,
        describe,
        prepare=partial(_square, pixels=pixels),
        network=PictureNetwork(network, call, pixels),
    )


def _square(picture, pixels):
    """The middle square of a picture (H, W, 3), at `pixels`. Such a square stays as it is."""
    import cv2

    if picture.shape[:2] == (pixels, pixels):
        return picture
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(
        picture[top : top + side, left : left + side], (pixels, pixels), interpolation=cv2.INTER_AREA
    )
