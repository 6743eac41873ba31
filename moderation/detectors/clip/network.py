"""open_clip networks: architecture (by name or as JSON), checkpoint, tokenizer; no downloads, no pickles.

Source: https://github.com/mlfoundations/open_clip (MIT-style licence). The import takes seconds (it brings timm and
torchvision), so `load_network` does it in the worker, not when a configuration is read.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moderation.config.hints import closest
from moderation.detectors.clip.class_embeddings import Encode, EncodeAfter
from moderation.detectors.weights.locator import package_file
from moderation.errors import FatalError, UsageError, one_line

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    from moderation.detectors.deferred import torch

_Architecture = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipNetwork:
    """Both towers of a variant, fp32, on the CPU.

    visual: normalised pixels [B,3,S,S] -> [B,D]. encode: sentences -> [N,D]. scale: exp(logit_scale). path: its file.
    encode_after: sentences, and vectors [M,W] in the place of M words before them -> [N,D], differentiable.
    word_vectors: words -> float32 [m,W], the token embeddings that the tower reads for them.
    """

    visual: nn.Module
    encode: Encode
    scale: float
    path: str
    encode_after: EncodeAfter
    word_vectors: Callable[[str], torch.Tensor]


def read_architecture(named: str | Mapping[str, Any]) -> dict[str, Any]:
    """An open_clip architecture, read from its package without importing it, or as given.

    Raises UsageError for an unknown name (names the nearest) or a mapping that lacks keys.
    """
    if isinstance(named, str):
        # Every installed open_clip has this file; the others are in the same folder.
        folder = package_file("open_clip", "model_configs/ViT-B-32.json").parent
        file = folder / f"{named.replace('/', '-')}.json"
        if file.parent != folder or not file.is_file():
            names = sorted(path.stem for path in folder.glob("*.json"))
            close = closest(named, names)
            hint = f"; did you mean {close!r}?" if close else ""
            raise UsageError(f"detector 'clip': open_clip has no architecture {named!r}{hint}")
        architecture: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    else:
        architecture = copy.deepcopy(dict(named))
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in architecture]
    if missing:
        raise UsageError(f"detector 'clip': architecture lacks {', '.join(missing)}")
    return architecture


def image_size(architecture: _Architecture) -> int:
    """Side in pixels of the image tower's input. Raises UsageError where it is not square."""
    size = architecture["vision_cfg"].get("image_size", 224)
    sides = {int(s) for s in size} if isinstance(size, Sequence) else {int(size)}
    if len(sides) != 1:
        raise UsageError(f"detector 'clip': the image tower reads {size}, only squares are supported")
    return sides.pop()


def cost_ms(architecture: _Architecture) -> float:
    """Approximate milliseconds per frame on two CPU cores in bf16, for ordering and `doctor` only.

    Multiplications of a vision transformer over the measured rate of ViT-B/32 (75 frames/s, 8.7 GFLOP).
    """
    vision = architecture["vision_cfg"]
    layers, width, patch = vision.get("layers"), vision.get("width"), vision.get("patch_size")
    if not (isinstance(layers, int) and isinstance(width, int) and isinstance(patch, int)):
        return 50.0  # a ResNet or a timm tower: a value between ViT-B/32 and ViT-L/14
    tokens = (image_size(architecture) // patch) ** 2 + 1
    operations = layers * (24.0 * tokens * width * width + 4.0 * tokens * tokens * width)
    return max(0.1, operations / 8.7e9 * 1000 / 75)


def load_network(architecture: _Architecture, path: str, dtype: torch.dtype) -> ClipNetwork:
    """Load a checkpoint into its architecture; the norms stay exact when the image tower is later cast to `dtype`.

    Raises FatalError when the file is not of this architecture, UsageError when its words need a package or a hub.
    """
    import open_clip

    config = dict(architecture)
    custom = bool(config.pop("custom_text", False))
    if "hf_model_name" in config["text_cfg"] or "multimodal_cfg" in config:
        raise UsageError("detector 'clip': text towers of transformers and CoCa decoders are not supported")
    encode_words = _tokenizer(open_clip, config["text_cfg"])
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        model = kind(**config, cast_dtype=dtype if dtype == torch.bfloat16 else None)
        _load_checkpoint(model, path)
    except (RuntimeError, TypeError, KeyError, ValueError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise FatalError(f"{path}: not a checkpoint of this architecture: {_first_lines(error)}") from error
    model = model.eval().requires_grad_(False)

    def encode(sentences: Sequence[str]) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            tokens = encode_words(list(sentences))
            embeddings: torch.Tensor = model.encode_text(tokens.to(model.logit_scale.device))
        return embeddings

    scale = float(model.logit_scale.exp().reshape(-1)[0])
    encode_after, word_vectors = _soft_words(model, encode_words)
    return ClipNetwork(
        visual=model.visual,
        encode=encode,
        scale=scale,
        path=path,
        encode_after=encode_after,
        word_vectors=word_vectors,
    )


def cast_visual(visual: nn.Module, architecture: _Architecture, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move the image tower to its device, with multiplications in `dtype`.

    Transformers are cast as open_clip casts them (norms and sums in fp32). ResNets and timm towers stay fp32 and use
    autocast.
    """
    from open_clip.model import convert_weights_to_lp

    visual = visual.to(device)
    if dtype == torch.bfloat16 and _is_transformer(architecture):
        convert_weights_to_lp(visual, dtype=dtype)
        if device.type == "cuda":
            from moderation.detectors.clip.gpu_tower import suit_gpu

            suit_gpu(visual)
    return visual


def visual_dtype(architecture: _Architecture, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the pixels that `cast_visual`'s tower reads."""
    return dtype if _is_transformer(architecture) else torch.float32


def _is_transformer(architecture: _Architecture) -> bool:
    vision = architecture["vision_cfg"]
    return isinstance(vision.get("layers", 12), int) and not vision.get("timm_model_name")


def _tokenizer(open_clip: Any, text: Mapping[str, Any]) -> Any:  # noqa: ANN401 - open_clip is untyped
    length = text.get("context_length", 77)
    options = text.get("tokenizer_kwargs") or {}
    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.SimpleTokenizer(context_length=length, **options)
    try:
        mode = text.get("tokenizer_mode")
        return open_clip.HFTokenizer(name, context_length=length, tokenizer_mode=mode, **options)
    except ImportError as error:
        raise UsageError(
            f"detector 'clip': its tokenizer {name!r} needs a package; pip install transformers"
        ) from error
    except OSError as error:
        raise UsageError(
            f"detector 'clip': its tokenizer {name!r} is not in the hub's cache ($HF_HOME) and cannot be fetched"
        ) from error


def _soft_words(
    model: Any,  # noqa: ANN401 - open_clip is untyped
    encode_words: Any,  # noqa: ANN401 - open_clip is untyped
) -> tuple[EncodeAfter, Callable[[str], torch.Tensor]]:
    """The text tower with vectors in the place of words, as in CoOp (Zhou et al. 2022, arXiv:2109.01134)."""
    text = model if hasattr(model, "token_embedding") else model.text
    assert isinstance(text.token_embedding, torch.nn.Module)
    table = text.token_embedding

    def encode_after(sentences: Sequence[str], context_MW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffix
        count = len(context_MW)
        tokens = encode_words([f"{'x ' * count}{sentence}" for sentence in sentences])
        longest = int((encode_words(list(sentences)) != getattr(text, "pad_id", 0)).sum(dim=1).max())
        held = tokens[:, 1 : 1 + count]
        if longest + count > tokens.shape[1] or not bool((held == held[0, 0]).all()):
            raise UsageError(f"detector 'clip': its text tower has no room for {count} words before the longest text")

        def replace(_module: nn.Module, _given: object, vectors_NLW: torch.Tensor) -> torch.Tensor:  # noqa: N803
            before, after = vectors_NLW[:, :1], vectors_NLW[:, 1 + count :]
            return torch.cat([before, context_MW.to(before.dtype).expand(len(tokens), -1, -1), after], dim=1)

        # A hook, not a copy of the forward pass: pooling and masks stay open_clip's business.
        hook = table.register_forward_hook(replace)
        try:
            with torch.autocast("cpu", enabled=False):
                embeddings: torch.Tensor = model.encode_text(tokens)
        finally:
            hook.remove()
        return embeddings

    def word_vectors(words: str) -> torch.Tensor:
        length = len(words.split())
        vectors: torch.Tensor = table(encode_words([words]))[0, 1 : 1 + length].detach().float()
        return vectors

    return encode_after, word_vectors


def _load_checkpoint(model: nn.Module, path: str) -> None:
    from open_clip import load_checkpoint
    from safetensors import SafetensorError

    if path.endswith((".npz", ".npy")):
        raise ValueError("only safetensors, or pickles that torch loads with weights_only")
    try:
        # weights_only also keeps torch from running a TorchScript archive (OpenAI's own .pt files).
        load_checkpoint(model, path, strict=True, weights_only=True)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _first_lines(error: Exception) -> str:
    return one_line(error, 400)
