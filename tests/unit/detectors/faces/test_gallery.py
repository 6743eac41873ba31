"""Gallery without weights: dlib's format, alignment, parts, the gallery's file, matching, options."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moderation.detectors.faces.alignment import TARGET, cut_chips, similarity
from moderation.detectors.faces.dlib_file import DlibNetwork, read_dlib
from moderation.detectors.faces.gallery import GalleryDetector, Matcher, score_of
from moderation.detectors.faces.gallery_file import clean_name, decode_gallery, encode_gallery
from moderation.detectors.faces.network import FaceNetwork, load_face_network
from moderation.detectors.faces.parts import check_parts, embed_faces
from moderation.detectors.views import TensorFrames
from moderation.errors import FatalError, UsageError
from tests.tiny_gallery import faces_of, gallery_file, made_up

CPU = torch.device("cpu")


def number(value: int) -> bytes:
    """An integer as dlib writes it."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def text(value: str) -> bytes:
    return number(len(value)) + value.encode()


def tensor(*values: float) -> bytes:
    sides = (len(values), 1, 1, 1) if values else (0, 0, 0, 0)
    return number(2) + b"".join(map(number, sides)) + struct.pack(f"<{len(values)}f", *values)


def real(mantissa: int, exponent: int) -> bytes:
    return number(mantissa) + number(exponent)


REST = b"110" + tensor() * 3
HEAD = number(1) + text("loss_metric_2") + real(1, 0) * 2 + number(2) + number(1) + number(3)
INPUT = text("input_rgb_image_sized") + real(245, -1) + real(117, 0) + real(104, 0) + number(150) * 2
AFFINE = text("affine_") + tensor(1.5, -2.0) + (number(1) * 5) * 2 + number(0) + REST
NETWORK = HEAD + INPUT + text("relu_") + REST + number(1) + AFFINE


def write(folder: Path, data: bytes) -> Path:
    path = folder / "network.dat"
    path.write_bytes(data)
    return path


def test_a_file_of_dlib_is_read_layer_by_layer(tmp_path: Path) -> None:
    network = read_dlib(write(tmp_path, NETWORK))
    assert network.means == (122.5, 117.0, 104.0)
    assert (network.height, network.width) == (150, 150)
    assert [layer.name for layer in network.layers] == ["relu_", "affine_"]
    assert network.layers[1].parameters.tolist() == [1.5, -2.0]


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for end in range(len(NETWORK)):
        if NETWORK[:end] == NETWORK[: -len(AFFINE)]:
            continue  # after a whole layer: a shorter network
        with pytest.raises(FatalError, match="not readable"):
            read_dlib(write(tmp_path, NETWORK[:end]))


@given(st.integers(0, len(NETWORK) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_and_nothing_else(place: int, value: int) -> None:
    changed = NETWORK[:place] + bytes([value]) + NETWORK[place + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: changed)
        try:
            layers = read_dlib(__file__).layers
        except FatalError:
            return
        assert sum(layer.parameters.nbytes for layer in layers) < len(changed)


def test_a_tensor_larger_than_the_file_is_refused_before_it_is_made(tmp_path: Path) -> None:
    huge = text("affine_") + number(2) + number(2**60) + number(2**60) + number(1) * 2
    with pytest.raises(FatalError, match="more were due"):
        read_dlib(write(tmp_path, HEAD + INPUT + huge))


def test_a_network_of_other_layers_is_refused() -> None:
    empty = DlibNetwork(loss="loss_metric_2", means=(0.0, 0.0, 0.0), height=150, width=150, layers=())
    with pytest.raises(FatalError, match="another network"):
        load_face_network(FaceNetwork(), empty)


@given(st.floats(-3, 3), st.floats(10, 500), st.floats(-100, 900), st.floats(-100, 900))
def test_a_face_that_is_turned_scaled_and_shifted_is_laid_back_exactly(
    turn: float, scale: float, x: float, y: float
) -> None:
    a = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.array(TARGET) @ a.T + [x, y]
    move = similarity(torch.from_numpy(points)[None])[0].numpy()
    np.testing.assert_allclose(move, np.concatenate([a, [[x], [y]]], axis=1), rtol=1e-4, atol=1e-3)


def test_a_chip_shows_the_face_upright_whatever_its_size() -> None:
    # A ramp to the right, rotated by 90 degrees in the second frame; the chip must show it to the right again.
    ramp = torch.arange(240).to(torch.uint8).expand(240, 240)[..., None].expand(-1, -1, 3)
    target = torch.tensor(TARGET)
    upright = (target * 0.8 + 0.1)[None]
    turned = torch.stack([1 - upright[..., 1], upright[..., 0]], dim=-1)
    chips = cut_chips([ramp, ramp.rot90(-1, (0, 1)).contiguous()], [upright, turned], 50)
    expected = 240 * (0.1 + 0.8 * (torch.arange(50) + 0.5) / 50) - 0.5
    for chip in chips:
        torch.testing.assert_close(chip[0, 25], expected, atol=0.6, rtol=0)


def test_no_faces_are_no_chips() -> None:
    frame = torch.zeros(10, 10, 3, dtype=torch.uint8)
    assert cut_chips([frame], [torch.zeros(0, 5, 2)], 150).shape == (0, 3, 150, 150)


def test_weights_of_parts_are_shares_of_one() -> None:
    assert check_parts({"whole": 3, "upper": 1}) == {"whole": 0.75, "upper": 0.25}


@pytest.mark.parametrize(
    ("parts", "words"), [({"uper": 1}, "did you mean 'upper'"), ({"whole": 0}, "above 0"), ({}, "at least one")]
)
def test_wrong_parts_are_refused(parts: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_parts(parts)


def test_the_distance_of_an_ensemble_is_the_weighted_mean_of_its_parts_squared() -> None:
    torch.manual_seed(0)
    network = FaceNetwork().eval()
    chips = torch.rand(2, 3, 150, 150) * 255
    with torch.inference_mode():
        alone = {name: embed_faces(network, chips, {name: 1.0}) for name in ("whole", "lower")}
        fused = embed_faces(network, chips, check_parts({"whole": 3, "lower": 1}))
    squares = [0.75 * (alone["whole"][0] - alone["whole"][1]).square().sum()]
    squares.append(0.25 * (alone["lower"][0] - alone["lower"][1]).square().sum())
    torch.testing.assert_close((fused[0] - fused[1]).square().sum(), sum(squares), rtol=1e-4, atol=1e-9)


def test_a_gallery_comes_back_from_its_file_and_the_same_one_is_the_same_bytes() -> None:
    gallery = made_up(3, faces_each=2, parts={"whole": 2, "eyes": 1})
    data = encode_gallery(gallery)
    found = decode_gallery(data, where="here")
    assert found.names == gallery.names
    assert found.parts == gallery.parts
    assert found.person.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(found.embeddings, gallery.embeddings, atol=1e-3)
    assert data == encode_gallery(gallery)


def test_a_file_that_is_no_gallery_is_refused_by_name() -> None:
    data = encode_gallery(made_up(3))
    other = data.replace(b"embeddings", b"embodiment")
    for broken in (b"", b"GIF89a", data[:-1], data[:40], other, data.replace(b'\\"layout\\"', b'\\"lay_ut\\"')):
        with pytest.raises(UsageError, match="somewhere: no gallery"):
            decode_gallery(broken, where="somewhere")


def test_faces_of_people_who_are_not_named_are_refused() -> None:
    gallery = made_up(2)
    gallery.person[0] = 7
    with pytest.raises(UsageError, match="do not go together"):
        decode_gallery(encode_gallery(gallery), where="somewhere")


def test_a_name_is_made_printable_and_bounded() -> None:
    assert clean_name("Ann\x1b[31m\nLee") == "Ann [31m Lee"
    assert clean_name("\x00") == "?"
    assert len(clean_name("x" * 1000)) == 100


def test_the_nearest_row_is_found_over_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.detectors.faces.gallery._ROWS", 7)
    gallery = made_up(40)
    asked = torch.from_numpy(gallery.embeddings[[3, 39, 14, 0]]) + 0.01
    found = Matcher(gallery, CPU).match(asked)
    assert found.rows.tolist() == [3, 39, 14, 0]
    torch.testing.assert_close(found.distances, torch.full((4,), 0.01 * 128**0.5), rtol=1e-3, atol=1e-5)


def test_the_score_falls_with_the_distance_and_is_a_half_where_the_network_parts_people() -> None:
    scores = [score_of(d / 10) for d in range(15)]
    assert scores == sorted(scores, reverse=True)
    assert score_of(0.6) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "must name a file"),
        ({"galery": "x"}, "did you mean 'gallery'"),
        ({"gallery": "/no/such/file.safetensors"}, "no such file; make one"),
        ({"gallery": __file__}, "no gallery"),
        ({"gallery": "GIVEN", "threshold": 3}, "between 0 and 2"),
        ({"gallery": "GIVEN", "sha256": "0" * 64}, "not the one given"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(options: dict[str, object], words: str) -> None:
    given_file = {k: gallery_file() if v == "GIVEN" else v for k, v in options.items()}
    with pytest.raises(UsageError, match=words):
        GalleryDetector(given_file)


def test_another_content_of_the_same_name_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "people.safetensors"
    versions = set()
    for seed in (0, 1, 0):
        path.write_bytes(encode_gallery(made_up(2, seed=seed)))
        versions.add(GalleryDetector({"gallery": str(path)}).version)
    assert len(versions) == 2


def test_a_gallery_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.safetensors"
    made = made_up(2)
    path.write_bytes(encode_gallery(made).replace(made.network.encode(), made.network[::-1].encode()))
    with pytest.raises(UsageError, match="enroll again"):
        GalleryDetector({"gallery": str(path)})


def test_no_face_is_null_nobody_is_0_and_too_small_a_face_is_not_asked() -> None:
    detector = GalleryDetector({"gallery": gallery_file(), "min_side": 20})
    detector.network = FaceNetwork().eval()
    detector._matcher = Matcher(detector.gallery, CPU)
    sizes = [(60, 60), (60, 60), (10, 10)]
    batch = TensorFrames([np.zeros((h, w, 3), dtype=np.uint8) for w, h in sizes], sizes, CPU)
    with torch.inference_mode():
        scored = detector.score(batch, {"faces": faces_of(batch, [0, 2, 1])})
    # An untrained network's output lies near the origin, which is 1.4 from everybody.
    assert scored.scores[1, 0] == 0
    assert torch.isnan(scored.scores[[0, 2], 0]).all()
    assert scored.regions == [[], [], []]
