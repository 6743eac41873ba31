"""CLIP: questions in words for one open_clip variant; a stack with several variants has one detector for each.

    stack:
      keep_embeddings: true
      detectors:
        - name: clip
          alias: clip_b32                       # columns clip_b32.mask, ..., clip_b32.embedding
          weights: hf://laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model.safetensors
          options_from: questions/moderation.yaml
          options: {architecture: ViT-B-32}

One instance per variant, not one for all: each has its own weights, condition (`when:`), cost and embedding column, and
a policy fuses their votes like any others (`votes: [clip_b32.mask, clip_l14.mask]`, `fuse: mean_logit`).
Radford et al. 2021, https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moderation.config.canonical import canonical_json
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.clip.class_embeddings import (
    Contrasts,
    embed_question,
    make_contrasts,
    read_class_embeddings,
    score_embeddings,
)
from moderation.detectors.clip.network import (
    ClipNetwork,
    cast_visual,
    cost_ms,
    image_size,
    load_network,
    read_architecture,
    visual_dtype,
)
from moderation.detectors.clip.questions import Question, parse_options, read_questions
from moderation.detectors.clip.tuned import tuned_name
from moderation.detectors.weights.checksum import sha256_of
from moderation.detectors.weights.locator import default_cache

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    from moderation.detectors.deferred import torch


class Clip(DetectorDefaults):
    """One label per answer: the probability, 0..1, that the picture fits its texts rather than the contrasting ones.

    Options: see `questions.ClipOptions`. One image embedding per frame, whatever the number of questions;
    `stack.keep_embeddings` keeps it, normalised, and `moderation ask` then answers new questions without the pictures.
    View: short side to the tower's size, bicubic, then the centre; scaled by the checkpoint's mean and std.
    """

    name = "clip"

    def __init__(self, options: Mapping[str, Any]) -> None:
        parsed = parse_options(options)
        self.architecture = read_architecture(parsed.architecture)
        self.questions: tuple[Question, ...] = read_questions(parsed)
        self.labels: Sequence[str] = tuple(
            answer.label for question in self.questions for answer in question.answers if answer.label is not None
        )
        # Templates and neutral texts live in code, so their wording belongs to the version.
        said = canonical_json([asdict(question) for question in self.questions])
        self.version = f"1-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
        size = image_size(self.architecture)
        self.view = View(mode=parsed.resize, resize=size, crop=size, interpolation=parsed.interpolation)
        self.cost_ms = cost_ms(self.architecture)
        self.embedding_dim = int(self.architecture["embed_dim"])
        checkpoint = Weights(
            locator="", sha256="", licence=parsed.licence, origin=parsed.origin, size_bytes=parsed.size_bytes
        )
        # The empty locator is for the configuration to fill. After it come files that replace words.
        self.weights: Sequence[Weights] = (checkpoint, *(q.embeddings for q in self.questions if q.embeddings))
        self.pixel_facts = (parsed.mean, parsed.std)  # scaling of pixels: part of the key of cached embeddings
        self._mean: torch.Tensor
        self._std: torch.Tensor
        self._dtype: torch.dtype
        self._visual: nn.Module | None = None
        self._contrasts: Contrasts | None = None

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read both towers, turn the words into embeddings (cached), and keep the image tower on the device.

        Raises FatalError when the file is not of this architecture, UsageError for tuned embeddings that do not fit.
        """
        network = load_network(self.architecture, paths[0], dtype)
        tuned = dict(zip([q.name for q in self.questions if q.embeddings], paths[1:], strict=True))
        self._contrasts = self.embed_questions(self.questions, network, tuned).to(device)
        self._visual = cast_visual(network.visual, self.architecture, device, dtype)
        self.networks = (self._visual,)
        self._mean, self._std = (torch.tensor(each, device=device).view(1, 3, 1, 1) * 255 for each in self.pixel_facts)
        self._dtype = visual_dtype(self.architecture, dtype)

    def load_words(self, path: str) -> ClipNetwork:
        """The network on the CPU, in fp32, for questions over kept embeddings."""
        return load_network(self.architecture, path, torch.float32)

    def embed_questions(
        self, questions: Sequence[Question], network: ClipNetwork, tuned: Mapping[str, str]
    ) -> Contrasts:
        """Questions as one matrix; words are encoded or taken from the cache.

        tuned: question -> local file of class embeddings, for questions that have one instead of words.
        """
        key = self.model_key(network)
        cache = default_cache() / "words"
        embeddings = [
            read_class_embeddings(tuned[q.name], q, tuned_name(tuned[q.name], q, self.name, key), self.embedding_dim)
            if q.name in tuned
            else embed_question(q, network.encode, key=key, cache=cache)
            for q in questions
        ]
        return make_contrasts(questions, embeddings, network.scale)

    def embed(self, batch: FrameBatch) -> torch.Tensor:
        """Image embeddings [B,D], not normalised."""
        if self._visual is None:
            raise RuntimeError("load() first")
        pixels = batch.view(self.view)
        if not len(batch):
            return torch.zeros((0, self.embedding_dim), device=pixels.device)
        embedding: torch.Tensor = self._visual(((pixels - self._mean) / self._std).to(self._dtype))
        return embedding

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,labels]; embedding [B,D], shared by all questions."""
        embedding = self.embed(batch)
        if self._contrasts is None:
            raise RuntimeError("load() first")
        unit = torch.nn.functional.normalize(embedding.float(), dim=1)
        return Scored(scores=score_embeddings(unit, self._contrasts), embedding=embedding)

    def model_key(self, network: ClipNetwork) -> str:
        """The network's identity in 64 digits: the key of cached words and of files that replace words."""
        # A hub's file may come without a checksum: hashing 1.7 GB takes seconds, encoding the words a minute on a CPU.
        sha256 = self.weights[0].sha256 or sha256_of(Path(network.path))
        identity = canonical_json([sha256, self.architecture])
        return hashlib.sha256(identity.encode()).hexdigest()
