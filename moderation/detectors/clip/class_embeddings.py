"""Words -> class embeddings, computed once and cached; image embeddings compared with them -> scores.

Shape suffixes: B frames, T texts, A answers, L labels, D embedding.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.detectors.clip.questions import Question
from moderation.errors import FatalError, UsageError

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

# Sentences -> [N,D]: the text tower of a variant. EncodeAfter: the same, with vectors [M,W] before the words.
Encode: TypeAlias = "Callable[[Sequence[str]], torch.Tensor]"
EncodeAfter: TypeAlias = "Callable[[Sequence[str], torch.Tensor], torch.Tensor]"

_MAX_BYTES = 64 << 20  # of a file of class embeddings: 16,000 vectors of 1,024 numbers
_ENCODE_AT_ONCE = 256  # sentences; bounds the text tower's activations to some hundred MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrasts:
    """All questions of a variant as one matrix, with the grouping of its rows.

    texts_TD: float32, normalised. rows: long [A,m], the texts of each answer, padded with T. counts: float64 [A].
    rivals: long [A,m], the answers of each answer's question, padded with A. columns: long [L], answers with a label.
    scale: the checkpoint's exp(logit_scale): a cosine of 1 becomes this logit.
    """

    texts_TD: torch.Tensor  # noqa: N815 - shape suffix
    rows: torch.Tensor
    counts: torch.Tensor
    rivals: torch.Tensor
    columns: torch.Tensor
    scale: float

    def to(self, device: torch.device) -> Contrasts:
        """The same on a device."""
        return Contrasts(
            texts_TD=self.texts_TD.to(device),
            rows=self.rows.to(device),
            counts=self.counts.to(device),
            rivals=self.rivals.to(device),
            columns=self.columns.to(device),
            scale=self.scale,
        )


def make_contrasts(
    questions: Sequence[Question], embeddings: Sequence[Sequence[torch.Tensor]], scale: float
) -> Contrasts:
    """Make one matrix of many questions. embeddings: float32 [n,D] per question and answer, normalised or not."""
    answers = [answer for question in embeddings for answer in question]
    starts = np.cumsum([0, *(len(a) for a in answers)])
    total = int(starts[-1])
    rows = [list(range(starts[i], starts[i + 1])) for i in range(len(answers))]
    rivals: list[list[int]] = []
    columns: list[int] = []
    for question, of_answers in zip(questions, embeddings, strict=True):
        first = len(rivals)
        rivals += [list(range(first, first + len(of_answers)))] * len(of_answers)
        columns += [first + i for i, answer in enumerate(question.answers) if answer.label is not None]
    texts = torch.nn.functional.normalize(torch.cat([a.float().cpu() for a in answers]), dim=1)
    return Contrasts(
        texts_TD=texts,
        rows=_padded(rows, total),
        counts=torch.tensor([len(r) for r in rows], dtype=torch.float64),
        rivals=_padded(rivals, len(answers)),
        columns=torch.tensor(columns, dtype=torch.long),
        scale=scale,
    )


def score_embeddings(unit_BD: torch.Tensor, contrasts: Contrasts) -> torch.Tensor:  # noqa: N803 - shape suffix
    """Probabilities float32 [B,L], 0..1, from normalised image embeddings float [B,D].

    Softmax over the answers of a question; an answer's logit is the log of the mean exp of its texts' logits. One
    matrix product, whatever the number of questions; the rest is float64, which holds exp(117), the largest published
    scale, with room to spare.
    """
    with torch.autocast(unit_BD.device.type, enabled=False):
        logits_BT = contrasts.scale * (unit_BD.float() @ contrasts.texts_TD.T).double()  # noqa: N806 - shape suffix
    # Sums over gathered rows, not index_add: a GPU adds in any order then, and the same frame must score the same.
    answers = _gather_sums(logits_BT.exp(), contrasts.rows) / contrasts.counts
    probabilities = answers / _gather_sums(answers, contrasts.rivals)
    return probabilities[:, contrasts.columns].float().clamp_(0, 1)


def embed_question(question: Question, encode: Encode, *, key: str, cache: Path | None) -> list[torch.Tensor]:
    """For each answer, float32 [n,D], normalised: one embedding per text, the mean over the templates.

    key: identifies the text tower (hash of weights and architecture). cache: a folder with one file per text, or None.
    """
    names = [[_cache_name(key, text, question.templates) for text in answer.texts] for answer in question.answers]
    texts = {
        name: text
        for answer, answer_names in zip(question.answers, names, strict=True)
        for name, text in zip(answer_names, answer.texts, strict=True)
    }
    embeddings = _with_cache(texts, question.templates, encode, cache)
    return [torch.stack([embeddings[name] for name in answer_names]) for answer_names in names]


def _with_cache(
    texts: Mapping[str, str], templates: Sequence[str], encode: Encode, cache: Path | None
) -> dict[str, torch.Tensor]:
    """Cache name -> text embedding; embeddings missing in the cache are computed and added."""
    embeddings = _read_cache(cache, texts)
    absent = [name for name in texts if name not in embeddings]
    computed = _embed_texts([texts[name] for name in absent], templates, encode)
    for name, embedding in zip(absent, computed, strict=True):
        embeddings[name] = embedding
        if cache:
            _write_cached(cache / name, embedding)
    return embeddings


def _read_cache(cache: Path | None, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Cache name -> embedding, for those in the folder."""
    if cache is None:
        return {}
    cached = ((name, _read_cached(cache / name)) for name in names)
    return {name: embedding for name, embedding in cached if embedding is not None}


def read_class_embeddings(path: str, question: Question, variant: str, dim: int) -> list[torch.Tensor]:
    """Class embeddings that replace a question's words, float32 [n,D] per answer, from a safetensors file.

    Its tensors are named `<variant>/<label>` or `<label>`; the other side of a two-sided question is `against`.
    Raises UsageError when one is missing or the file is too large, FatalError when it is not readable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path}: over {_MAX_BYTES >> 20} MiB; not a file of class embeddings")
        tensors: Mapping[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FatalError(f"{path}: not readable as safetensors: {error}") from error
    embeddings: list[torch.Tensor] = []
    for answer in question.answers:
        label = answer.label or "against"
        tensor = tensors.get(f"{variant}/{label}", tensors.get(label))
        if tensor is None:
            raise UsageError(
                f"{path}: has no {variant}/{label} for question {question.name!r}; has: {', '.join(tensors)}"
            )
        if tensor.ndim != 2 or tensor.shape[1] != dim or not len(tensor):
            raise UsageError(f"{path}: {label} is {list(tensor.shape)}, expected [n,{dim}]; made for another variant?")
        embeddings.append(tensor.float())
    return embeddings


def _embed_texts(texts: Sequence[str], templates: Sequence[str], encode: Encode) -> list[torch.Tensor]:
    sentences = [template.replace("{}", text) for text in texts for template in templates]
    parts = [
        torch.nn.functional.normalize(encode(sentences[i : i + _ENCODE_AT_ONCE]).float().cpu(), dim=1)
        for i in range(0, len(sentences), _ENCODE_AT_ONCE)
    ]
    if not parts:
        return []
    means = torch.cat(parts).view(len(texts), len(templates), -1).mean(dim=1)
    return list(torch.nn.functional.normalize(means, dim=1))


def _cache_name(key: str, text: str, templates: Sequence[str]) -> str:
    identity = canonical_json({"key": key, "text": text, "templates": list(templates)})
    return f"{hashlib.sha256(identity.encode()).hexdigest()}.npy"


def _read_cached(path: Path) -> torch.Tensor | None:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (FileNotFoundError, ValueError, EOFError):
        return None  # missing or damaged: computed again


def _write_cached(path: Path, embedding: torch.Tensor) -> None:
    sink = io.BytesIO()
    np.save(sink, embedding.numpy(), allow_pickle=False)
    try:
        storage.publish(str(path), sink.getvalue())
    except OSError:
        return  # a read-only cache costs only time


def _gather_sums(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Sums of columns: values [B,N], index [M,m] where N means none -> [B,M]."""
    padded = torch.nn.functional.pad(values, (0, 1))
    return padded[:, index].sum(dim=2)


def _padded(lists: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    longest = max(len(entry) for entry in lists)
    return torch.tensor([[*entry, *[fill] * (longest - len(entry))] for entry in lists], dtype=torch.long)
