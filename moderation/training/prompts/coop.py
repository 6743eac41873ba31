"""Learns vectors before the words of all classes instead of class embeddings: gradients pass through the text tower.

Zhou, Yang, Loy, Liu 2022, "Learning to prompt for vision-language models" (CoOp, https://arxiv.org/abs/2109.01134),
with one context for all classes. It learns far fewer numbers than class embeddings (M x W for all classes) and takes
far longer: each step encodes every text of the check. The result is class embeddings too, so scoring is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from moderation.detectors.clip.network import ClipNetwork
from moderation.training.prompts.spaces import Space, spans_of

# CoOp starts from these words where the context is as long; else they are cut, or padded with noise.
_START = "a photo of a"
_NOISE = 0.02  # the spread of CLIP's own token embeddings at initialisation


def context_space(
    images: npt.NDArray[np.float32],
    network: ClipNetwork,
    answers: Sequence[Sequence[str]],
    *,
    tokens: int,
    seed: int,
) -> Space:
    """A space that learns context vectors [tokens,W] before each text of each answer.

    Raises UsageError where they do not fit.
    """
    sentences = [text for texts in answers for text in texts]
    words = network.word_vectors(_START)[:tokens]
    noise = torch.randn((tokens - len(words), words.shape[1]), generator=torch.Generator().manual_seed(seed)) * _NOISE

    def texts(contexts: torch.Tensor) -> torch.Tensor:
        read = [network.encode_after(sentences, context) for context in contexts]
        return torch.nn.functional.normalize(torch.stack(read).float(), dim=-1)

    start = torch.cat([words, noise])
    network.encode_after(sentences[:1], start)  # fails at once where the context does not fit
    # No pull towards the start: a few vectors cannot overfit. A step is a tenth of their own spread.
    return Space(
        images_ND=torch.from_numpy(images),
        spans=spans_of([len(texts_of) for texts_of in answers]),
        scale=network.scale,
        start=start,
        texts=texts,
        stay=0.0,
        rate=_NOISE * tokens**0.5,
    )
