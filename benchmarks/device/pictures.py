"""The pictures of the benchmark: a few that travel, and JPEGs of three sizes made of them where it runs.

What travels is drawn here, or ships in the package scikit-image. Photographs enlarged to 12 megapixels lack the noise
of a camera, which is most of the bytes of its files: noise is added, so that a JPEG has 1.5 to 3 bits a pixel.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

PACK = Path(__file__).resolve().parents[2]
FOLDER = "pictures"
MEGAPIXELS: Mapping[str, float] = {"small": 0.2, "medium": 2.0, "large": 12.0}
COUNTS: Mapping[str, int] = {"small": 256, "medium": 64, "large": 24}
FEW: Mapping[str, int] = {"small": 12, "medium": 4, "large": 2}
_SHIPPED = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "page.png",
            "rocket.jpg", "text.png")  # fmt: skip
_RATIOS = (4 / 3, 3 / 4, 3 / 2, 16 / 9, 1.0)
_MOST_PIXELS = 350_000  # of a picture that travels
_NOISE = 5.0  # levels, standard deviation


def base_pictures(pack: Path = PACK) -> list[Image.Image]:
    """The pictures that travel, from the pack, or made anew where there is none."""
    folder = pack / FOLDER
    if folder.is_dir():
        return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))]
    return [*_shipped(), _draw_lines(), _draw_code(), _draw_shapes()]


def write_base(folder: Path) -> int:
    """Write the pictures that travel; how many."""
    folder.mkdir(parents=True)
    pictures = base_pictures(folder.parent / "none")
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index:02d}.jpg", quality=90)
    return len(pictures)


def write_variants(folder: Path, counts: Mapping[str, int], processes: int) -> dict[str, int]:
    """JPEGs of each size, a quarter of them progressive; returns how many of each and their mean size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(str(folder), size, index) for size in reversed(MEGAPIXELS) for index in range(counts[size])]
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_write_variant, wanted, chunksize=4))
    return {
        f"{size}_{fact}": value
        for size in MEGAPIXELS
        for sizes in [[path.stat().st_size for path in folder.glob(f"{size}-*.jpg")]]
        for fact, value in (("files", len(sizes)), ("mean_bytes", sum(sizes) // max(1, len(sizes))))
    }


def read_variants(folder: Path, size: str, kind: str = "*") -> list[bytes]:
    """The bytes of all variants of a size; kind: `baseline` or `progressive`."""
    return [path.read_bytes() for path in sorted(folder.glob(f"{size}-{kind}-*.jpg"))]


def _write_variant(wanted: tuple[str, str, int]) -> None:
    folder, size, index = wanted
    rng = np.random.default_rng(index)
    bases = base_pictures()
    picture = bases[index % len(bases)]
    width, height = picture.size
    share = rng.uniform(0.7, 1.0)
    left, top = rng.uniform(0, 1 - share) * width, rng.uniform(0, 1 - share) * height
    box = (int(left), int(top), int(left + share * width), int(top + share * height))
    ratio = _RATIOS[index % len(_RATIOS)]
    if size == "small" and index % 2:
        ratio *= rng.uniform(0.9, 1.1)  # small ones come from everywhere: half have sizes of their own
    pixels = MEGAPIXELS[size] * 1e6
    target = (round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5))
    scaled = np.asarray(picture.resize(target, Image.Resampling.BICUBIC, box), np.int16)
    noisy = add_noise(scaled, rng)
    kind = "progressive" if index % 4 == 1 else "baseline"
    sink = io.BytesIO()
    Image.fromarray(noisy).save(sink, "JPEG", quality=92, progressive=kind == "progressive")
    (Path(folder) / f"{size}-{kind}-{index:03d}.jpg").write_bytes(sink.getvalue())


def add_noise(pixels: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """int16 [H,W,3] with the noise of a camera: a JPEG of it has 1.5 to 3 bits a pixel."""
    height, width = pixels.shape[:2]
    tile = rng.normal(0, _NOISE, (256, 256, 3)).round().astype(np.int16)
    noise = np.tile(tile, (-(-height // 256), -(-width // 256), 1))[:height, :width]
    noisy: npt.NDArray[np.uint8] = (pixels + noise).clip(0, 255).astype(np.uint8)
    return noisy


def _shipped() -> list[Image.Image]:
    spec = find_spec("skimage")
    folders: Sequence[str] = (spec.submodule_search_locations or ()) if spec else ()
    files = [Path(folder) / "data" / name for folder in folders for name in _SHIPPED]
    return [_bounded(Image.open(file).convert("RGB")) for file in files if file.is_file()]


def _bounded(picture: Image.Image) -> Image.Image:
    scale = (_MOST_PIXELS / (picture.width * picture.height)) ** 0.5
    if scale >= 1:
        return picture
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _draw_lines() -> Image.Image:
    """Text that the packaged rules know, and some that they do not."""
    picture = Image.new("RGB", (640, 480), (236, 232, 220))
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(
        ("CLEARANCE SALE 50% OFF", "visit www.example.org", "stock photo preview", "A quiet day")
    ):
        draw.text((24, 40 + 100 * row), line, fill=(20, 30, 60), font=ImageFont.load_default(44 - 6 * row))
    return picture


def _draw_code() -> Image.Image:
    """A QR code on a photograph's grey, or the grey alone where the reader's package is not installed."""
    picture = Image.fromarray(np.random.default_rng(3).integers(90, 130, (400, 520, 3)).astype(np.uint8))
    try:
        import zxingcpp
    except ImportError:
        return picture
    code = zxingcpp.create_barcode("https://www.example.org/a", zxingcpp.BarcodeFormat.QRCode)
    squares = Image.fromarray(np.asarray(zxingcpp.write_barcode_to_image(code, scale=6)))
    picture.paste(squares.convert("RGB"), (60, 90))
    return picture


def _draw_shapes() -> Image.Image:
    """Skin tones, edges and a plain sky."""
    picture = Image.new("RGB", (480, 640), (120, 170, 230))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((120, 90, 360, 400), fill=(214, 164, 132))
    draw.rectangle((60, 420, 420, 620), fill=(180, 40, 50))
    for x in range(0, 480, 24):
        draw.line((x, 400, 480 - x, 640), fill=(250, 250, 250), width=2)
    return picture
