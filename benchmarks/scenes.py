"""`python -m benchmarks.scenes --pictures IMAGES`: a probe learns eight coarse scenes from 100 photographs.

The pictures are sample photographs of ImageNet, one a class, its name in the file's. Those that show a scene are
grouped by where they were taken; things on plain ground are left out. Each of twenty draws learns from 100
pictures, spread over the scenes, and is asked for the others: so it answers for classes that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.machine import machine_facts
from moderation.config.load import load_config
from moderation.detectors.nn.class_mean import ClassVectors
from moderation.sources import open_source
from moderation.training.heads.backbone import find_backbone, load_backbone
from moderation.training.heads.features import compute_features
from moderation.training.heads.probe import choose_probes

LEARNED: Final = 100
_DRAWS: Final = 20
_SIDES: Final = (None, 288)  # of the backbone; None: its own, 224

_SCENES: Final[Mapping[str, str]] = {
    "animals": """
        European_fire_salamander bullfrog mud_turtle American_chameleon Gila_monster American_alligator green_snake
        night_snake harvestman black_widow koala Shih-Tzu Afghan_hound black-and-tan_coonhound Irish_wolfhound
        otterhound American_Staffordshire_terrier Norfolk_terrier Sealyham_terrier Boston_bull Tibetan_terrier
        flat-coated_retriever German_short-haired_pointer Brittany_spaniel Sussex_spaniel malinois Shetland_sheepdog
        German_shepherd Appenzeller French_bulldog Siberian_husky Leonberg chow toy_poodle white_wolf
        African_hunting_dog grey_fox Egyptian_cat jaguar American_black_bear tiger_beetle dung_beetle ant mantis
        damselfly sulphur_butterfly wood_rabbit fox_squirrel zebra ox ibex llama otter orangutan guenon colobus titi
        Indian_elephant fiddler_crab hermit_crab
        """,
    "birds": """
        brambling robin water_ouzel black_grouse quail lorikeet jacamar limpkin red-backed_sandpiper
        """,
    "water": """
        tench electric_ray sea_snake sea_slug sea_lion eel gar breakwater container_ship drilling_platform lifeboat
        schooner lakeside dam black_swan flamingo king_penguin flatworm
        """,
    "worn": """
        academic_gown bikini bulletproof_vest chain_mail cowboy_hat football_helmet gasmask jersey knee_pad Loafer
        miniskirt pickelhaube poncho running_shoe sarong velvet
        """,
    "road": """
        car_mirror fire_engine freight_car golfcart moped motor_scooter moving_van passenger_car steam_locomotive
        tricycle traffic_light mobile_home
        """,
    "country": """
        harvester oxcart plow barn apiary greenhouse yurt alp volcano cliff_dwelling stone_wall water_tower
        radio_telescope
        """,
    "food": """
        consomme French_loaf mashed_potato spaghetti_squash bell_pepper orange jackfruit chocolate_sauce burrito bakery
        """,
    "indoors": """
        bathtub china_cabinet crib refrigerator rocking_chair quilt window_shade tobacco_shop toyshop stretcher
        espresso_maker coffeepot paper_towel cash_machine slot laptop electric_fan projector shopping_basket
        """,
}
_SCENE_OF: Final = {word: scene for scene, words in _SCENES.items() for word in words.split()}


def scene_of(file: str) -> str | None:
    """The scene of `n01530575_brambling.JPEG`; None where it shows none."""
    return _SCENE_OF.get(file.rpartition(".")[0].partition("_")[2])


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--cache", type=Path, help="folder that keeps features")
    parser.add_argument("--out", help="file for the figures")
    options = parser.parse_args()
    config = load_config(None)
    items = [item for item in open_source(options.pictures, config.source) if scene_of(Path(item.uri).name)]
    scenes = sorted(_SCENES)
    of = torch.tensor([scenes.index(scene_of(Path(item.uri).name) or "") for item in items])
    figures: dict[str, Any] = {"pictures": len(items), "learned": LEARNED, "draws": _DRAWS}
    figures["scenes"] = {scene: int((of == place).sum()) for place, scene in enumerate(scenes)}
    with tempfile.TemporaryDirectory() as empty:
        for side in _SIDES:
            backbone = load_backbone(find_backbone(config, "imagenet", input_px=side), config)
            found = compute_features(items, backbone, config, options.cache or Path(empty), views=1, seed=0)
            kept = of[torch.from_numpy(found.kept)]
            figures[f"accuracy_{side or 224}_px"] = {
                "probe": measure_draws(found.embeddings, kept, backbone.classifier),
                "embedding_alone": measure_draws(found.embeddings, kept, None),
            }
    text = json.dumps({**figures, "machine": machine_facts()}, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def measure_draws(
    embeddings: torch.Tensor, of: torch.Tensor, classifier: ClassVectors | None, *, draws: int = _DRAWS
) -> dict[str, float]:
    """Mean and deviation of the accuracy over draws, and the mean of the scenes' own accuracies.

    embeddings: float32 [N,1,D]; of: int64 [N]. classifier: of the backbone, for probes that may read its classes, too;
    with_classes: share of the draws whose probe does.
    """
    targets = torch.nn.functional.one_hot(of).float()
    right, even, related = [], [], []
    for seed in range(draws):
        order = _spread(of.numpy(), seed)
        learned, asked = order[:LEARNED], order[LEARNED:]
        folds = np.arange(LEARNED, dtype=np.int64) % 5
        probe, _, _ = choose_probes(
            embeddings[learned], targets[learned], folds, several=False, balance=True, classifier=classifier
        )
        answers = probe.logits(embeddings[asked, 0]).argmax(dim=1)
        related.append(probe.classifier is not None)
        hits = (answers == of[asked]).float()
        right.append(hits.mean().item())
        even.append(np.mean([hits[of[asked] == scene].mean().item() for scene in of[asked].unique()]))
    return {
        "mean": round(float(np.mean(right)), 3),
        "deviation": round(float(np.std(right)), 3),
        "mean_of_scenes": round(float(np.mean(even)), 3),
        "with_classes": round(float(np.mean(related)), 3),
    }


def _spread(of: Any, seed: int) -> torch.Tensor:  # noqa: ANN401 - int64 [N]
    """An order in which every beginning has the scenes in their proportions."""
    rng = np.random.default_rng(seed)
    rank = np.zeros(len(of))
    for scene in np.unique(of):
        rows = rng.permutation(np.flatnonzero(of == scene))
        rank[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return torch.from_numpy(np.argsort(rank))


if __name__ == "__main__":
    main()
