"""Backbones: they turn pictures into features. A backbone is chosen by name, with or without learned weights.

A backbone describes every frame. `pool` turns the descriptions of a window of frames into one feature step.
Weights come from the Hugging Face hub and stay in its cache. `hog-hof` needs no weights; those of
`efficientnet-lite0` come from a package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tal_lib.data import shipped
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.video import hog_hof

WINDOW = 16  # frames
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
class Backbone:
    """Describes pictures.

    describe: takes pictures (n, H, W, 3), RGB, uint8, and the picture before them (None at the start). It
    returns (n, D), where D is the sum of `streams`.
    """

    name: str
    streams: Mapping[str, int]
    size: tuple[int, int] | None  # (width, height) of the decoded frames; None keeps their size
    describe: Callable[[np.ndarray, np.ndarray | None], np.ndarray]

    def pool(self, described: np.ndarray) -> np.ndarray:
        """Descriptions of a window's frames (n, D) → one step (D,)."""
        return described.mean(0)


def backbones() -> list[str]:
    """Names of all backbones."""
    return ["hog-hof", *NETWORKS]


def backbone(name: str) -> Backbone:
    """A backbone that is ready to describe pictures.

    Args:
        name: a name from `backbones()`, or `transformers:WHERE` or `clip:WHERE`. WHERE is a hub name or a
            folder.

    Raises:
        TalError: the name is unknown, a library is missing, or the weights are neither cached nor reachable.
    """
    if name == "hog-hof":
        return Backbone(name, HOG_HOF, (4 * hog_hof.WIDTH, 4 * hog_hof.HEIGHT), _hog_hof)
    kind, colon, where = name.partition(":")
    if colon and kind in ("transformers", "clip") and where:
        network, dim = _load(name, kind, where)
        return _of_network(name, kind, network, dim, 224, CLIP if kind == "clip" else IMAGENET)
    if name not in NETWORKS:
        raise TalError(f"no backbone {name!r}", remedy=f"Choose from {', '.join(backbones())}.")
    kind, where, dim, pixels, scale = NETWORKS[name]
    return _of_network(name, kind, _load(name, kind, where)[0], dim, pixels, scale)


def backbone_for(spec: FeatureSpec) -> Backbone:
    """The backbone whose streams match a feature spec, so that a model gets the features it was trained on.

    Raises:
        TalError: no backbone has these streams.
    """
    streams = {"hog-hof": HOG_HOF} | {name: {name: known[2]} for name, known in NETWORKS.items()}
    for name, dimensions in streams.items():
        if dict(spec.streams) == dimensions:
            return backbone(name)
    raise TalError(f"no backbone gives the streams {dict(spec.streams)}", remedy="Name it with --backbone.")


def _hog_hof(pictures, before):
    images = [hog_hof.gray(picture) for picture in pictures]
    earlier = [images[0] if before is None else hog_hof.gray(before), *images]
    return np.stack(
        [
            np.concatenate([hog_hof.hog(image), hog_hof.hof(last, image)])
            for last, image in zip(earlier, images)
        ]
    )


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
        network = transformers.AutoModel.from_pretrained(where)
        sizes = getattr(network.config, "hidden_sizes", None)
        return network.eval(), sizes[-1] if sizes else network.config.hidden_size
    except ImportError as error:
        raise TalError(
            f"backbone {name} needs {error.name or 'a library'} that is not installed",
            remedy="pip install "
            f"{'timm' if kind == 'timm' else 'efficient-tal[text]'}, or use --backbone hog-hof.",
        ) from None
    except Exception as error:  # the hub raises many: offline, unknown name, damaged files
        raise TalError(
            f"weights of backbone {name} are neither cached nor reachable ({type(error).__name__})",
            where=where,
            remedy="Fetch them once with a connection, or use --backbone hog-hof.",
        ) from None


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

    @torch.inference_mode()
    def describe(pictures, before):
        x = torch.from_numpy(_square(pictures, pixels)).permute(0, 3, 1, 2).float() / 255
        x = (x - mean) / deviation
        if kind == "timm":
            return network(x).numpy()
        if kind == "lite":
            return network.extract_features(x).mean((2, 3)).numpy()
        if kind == "clip":
            return network(pixel_values=x).image_embeds.numpy()
        return network(pixel_values=x).pooler_output.flatten(1).numpy()

    stream = name if name in NETWORKS else kind
    return Backbone(name, {stream: dim}, None, describe)


def _square(pictures, pixels):
    """The middle square of pictures (n, H, W, 3), at `pixels`."""
    import cv2

    height, width = pictures.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.stack(
        [
            cv2.resize(
                picture[top : top + side, left : left + side], (pixels, pixels), interpolation=cv2.INTER_AREA
            )
            for picture in pictures
        ]
    )
