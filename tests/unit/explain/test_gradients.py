"""Gradients of votes, through the detectors' own code: every network of the default stack; where they do not fit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from moderation.config.model import Config
from moderation.detectors.nn.gradients import as_leaf, with_gradients
from moderation.detectors.views import TensorFrames
from moderation.explain.differentiable import NotDifferentiableError, VoteOfView
from moderation.explain.gradients import attribute, gradient_method, rank_correlation
from moderation.explain.vote_stack import VoteStack, load_vote_stack
from moderation.types import Frame

NETWORKS = {"open_nsfw": "sfw", "image_safety": "sfw", "imagenet": "printed", "watermark": "mark"}


def load(*entries: Mapping[str, Any]) -> VoteStack:
    config = Config.model_validate({"stack": {"detectors": list(entries), "device": "cpu"}})
    return load_vote_stack(config, entries[-1]["name"].rpartition(":")[2], exact=True)


def noise(seed: int = 0, height: int = 240, width: int = 300) -> Frame:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    pixels = pixels.repeat(8, axis=0).repeat(8, axis=1)
    return Frame(index=0, pixels=pixels, width=pixels.shape[1], height=pixels.shape[0])


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> VoteStack:
    return load({"name": request.param})


@pytest.mark.weights
def test_the_gradient_is_that_of_the_score(network: VoteStack) -> None:
    votes, name = network, network.title
    column = votes.column(NETWORKS[name])
    model = VoteOfView(votes, column)
    frame = noise()
    batch = TensorFrames([frame.pixels], [(frame.width, frame.height)], torch.device("cpu"))
    with with_gradients():
        view = as_leaf(batch.view(model.view))
        value = model(view)
        (gradient,) = torch.autograd.grad(value.sum(), view)
        score = torch.sigmoid(value)
        step = 2.0 * gradient / gradient.abs().max()
        raised = model((view + step).detach())
    assert float(score[0].detach()) == pytest.approx(float(votes.stack.score([frame]).scores[0, column]), abs=2e-3)
    assert float(raised[0]) > float(value[0].detach())


@pytest.mark.weights
def test_grad_cam_maps_every_network_of_the_default_stack(network: VoteStack) -> None:
    votes, name = network, network.title
    frames = [noise(1), noise(2, height=180, width=320)]
    maps = attribute(votes, votes.column(NETWORKS[name]), frames, "gradcam")
    assert gradient_method(votes) == "gradcam"
    for frame, values in zip(frames, maps, strict=True):
        assert values.ndim == 2 and abs(values.shape[0] / values.shape[1] - frame.height / frame.width) < 0.02
        known = values[np.isfinite(values)]
        assert len(known) and known.min() >= 0
        # That noise is safe both networks see; that it is printed or marked, the others may not.
        assert known.max() > 0 or name in ("imagenet", "watermark")


@pytest.mark.weights
@pytest.mark.parametrize("method", ["guided", "deconvolution"])
def test_modified_relus_map_what_has_relus_and_refuse_what_has_none(network: VoteStack, method: str) -> None:
    column = network.column(NETWORKS[network.title])
    if network.title == "image_safety":
        with pytest.raises(NotDifferentiableError, match="ReLU"):
            attribute(network, column, [noise()], method)
        return
    (values,) = attribute(network, column, [noise()], method)
    known = values[np.isfinite(values)]
    assert known.max() > known.min() >= 0


@pytest.mark.weights
def test_legrad_does_not_fit_a_convolutional_network(network: VoteStack) -> None:
    with pytest.raises(NotDifferentiableError, match="gradcam"):
        attribute(network, network.column(NETWORKS[network.title]), [noise()], "legrad")


def test_what_is_no_network_says_that_occlusion_explains_it() -> None:
    votes = load({"name": "skin"})
    with pytest.raises(NotDifferentiableError, match="occlusion explains it"):
        attribute(votes, votes.column("share"), [noise()], "gradcam")


def test_rank_correlation_is_1_with_itself_and_0_with_a_flat_map() -> None:
    values = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    values[0] = np.nan
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, np.ones_like(values)) == 0


VISION_TRANSFORMER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "layers": 4, "width": 64, "head_width": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> VoteStack:
    """A small CLIP with a vision transformer; its numbers are random."""
    import hashlib

    import open_clip
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = open_clip.CLIP(**VISION_TRANSFORMER).state_dict()
    path: Path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    questions = {"red": {"texts": ["a red thing"], "against": ["a blue thing"]}}
    options = {"architecture": VISION_TRANSFORMER, "questions": questions, "licence": "none", "origin": "a test"}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return load({"name": "clip", "weights": f"file://{path}", "sha256": sha256, "options": options})


@pytest.mark.long
def test_a_vision_transformer_is_explained_by_legrad(transformer: VoteStack) -> None:
    column = transformer.column("red")
    frames = [noise(1, 128, 128), noise(2, 128, 256)]
    before = transformer.stack.score(frames).scores[:, column]
    maps = attribute(transformer, column, frames, "legrad")
    assert gradient_method(transformer) == "legrad"
    for values in maps:
        known = values[np.isfinite(values)]
        assert known.min() >= 0 and known.max() > known.min()
    # The tower is whole again, and scores as before.
    np.testing.assert_array_equal(transformer.stack.score(frames).scores[:, column], before)


@pytest.mark.long
def test_opened_attention_computes_what_the_fused_one_does(transformer: VoteStack) -> None:
    from moderation.explain.attention import _opened, transformer_of

    tower = transformer_of(transformer.stack.slots)
    assert tower is not None
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = tower(pixels)
        with _opened(tower.transformer.resblocks[-1].attn) as opened:
            np.testing.assert_allclose(tower(pixels).numpy(), plain.numpy(), atol=1e-5)
    assert opened.weights_BHNN is not None
    np.testing.assert_allclose(opened.weights_BHNN.sum(dim=-1).numpy(), 1, atol=1e-5)


@pytest.mark.long
def test_the_tower_in_the_form_for_a_gpu_is_explained_as_the_plain_one(transformer: VoteStack) -> None:
    from moderation.detectors.clip.gpu_tower import suit_gpu
    from moderation.explain.attention import LeGrad, transformer_of

    tower = transformer_of(transformer.stack.slots)
    assert tower is not None
    suited = copy.deepcopy(tower)
    suit_gpu(suited)
    view = torch.randn(1, 3, 64, 64)
    with with_gradients():
        maps = [LeGrad(one).attribute(lambda x, one=one: one(x)[:, 0], view) for one in (tower, suited)]
    assert maps[0].max() > 0
    np.testing.assert_allclose(maps[1].detach().numpy(), maps[0].detach().numpy(), atol=1e-6)
    suited_slot = SimpleNamespace(detector=SimpleNamespace(networks=(suited,)))
    assert transformer_of([suited_slot]) is suited  # type: ignore[list-item]  # of a slot only this is read
