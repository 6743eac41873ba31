"""Eight coarse scenes that the 200 sample photographs (one an ImageNet class, in the file's name) are grouped into."""

from __future__ import annotations

from collections.abc import Mapping

# Any other class is an animal on land.
_SCENES: Mapping[str, str] = {
    "bird": """
        brambling robin water_ouzel black_grouse quail lorikeet jacamar black_swan flamingo limpkin red-
        backed_sandpiper king_penguin
        """,
    "water": """
        tench electric_ray sea_snake flatworm sea_slug fiddler_crab hermit_crab sea_lion eel gar breakwater
        container_ship drilling_platform lifeboat schooner lakeside dam
        """,
    "clothing": """
        academic_gown bikini bulletproof_vest chain_mail cowboy_hat football_helmet gasmask jersey knee_pad
        Loafer miniskirt pickelhaube poncho running_shoe sarong velvet
        """,
    "road": """
        bobsled car_mirror disk_brake fire_engine freight_car golfcart harvester moped motor_scooter
        moving_van oxcart passenger_car plow steam_locomotive tricycle unicycle traffic_light manhole_cover
        mobile_home
        """,
    "food": """
        consomme French_loaf mashed_potato spaghetti_squash bell_pepper orange jackfruit chocolate_sauce
        burrito bakery beer_bottle coffeepot espresso_maker pitcher wooden_spoon
        """,
    "indoors": """
        banjo bathtub bottlecap candle cash_machine CD_player china_cabinet crib digital_clock electric_fan
        hair_spray hand-held_computer hook iPod laptop magnetic_compass microphone nipple odometer padlock
        paper_towel pencil_sharpener pill_bottle power_drill projector quilt refrigerator rocking_chair
        seat_belt shopping_basket slot space_bar stretcher swab syringe teddy thimble tobacco_shop toyshop
        trombone window_shade
        """,
    "outdoors": """
        airship apiary barn basketball cliff_dwelling greenhouse maypole radio_telescope ski soccer_ball
        spider_web stone_wall sundial volleyball warplane water_tower yurt alp volcano daisy buckeye
        earthstar
        """,
}
_SCENE_OF = {word: scene for scene, words in _SCENES.items() for word in words.split()}


def scene_of(file: str) -> str:
    """The scene of `n01530575_brambling.JPEG`."""
    return _SCENE_OF.get(file.rpartition(".")[0].partition("_")[2], "animal")
