"""What the numbers of a picture mean: its ICC profile, code points, or a PNG's gAMA and cHRM, converted to sRGB.

Viewers manage colour, so a picture whose numbers look harmless may be shown as another one. A profile is not trusted by
its name: its effect on a grid of colours is measured, and one without visible effect costs nothing further.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from moderation.media.cicp import IS_XYZ, primaries_of, states_colours, to_light
from moderation.types import U8

MAX_PROFILE_BYTES = 4 * 1024 * 1024  # the largest profiles of print shops have 3 MB
_KEPT_TRANSFORMS = 16  # a few profiles make up nearly all; one of CMYK takes 2 MB
_INVISIBLE = 3  # of 255: versions of sRGB differ by less
_PROFILE_CLASSES = frozenset({b"mntr", b"scnr", b"prtr", b"spac"})  # ICC.1, 7.2.5: classes that describe a picture
# Names in `info` of a Pillow image, beside Pillow's own `icc_profile`.
OTHER_PROFILES, CODE_POINTS, STORED_RGB, STORED_GREY = "other_profiles", "code_points", "stored_rgb", "stored_grey"
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's signature -> Pillow's mode
_SRGB_GAMMA = 1 / 2.2
_GAMMA_TOLERANCE = 0.05  # libpng's PNG_GAMMA_THRESHOLD: a smaller difference is ignored
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError, AttributeError)

# Linear sRGB from XYZ with white D65, and its primaries (IEC 61966-2-1).
_FROM_XYZ = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
_D65 = np.array([0.9505, 1.0, 1.089])

_transforms: OrderedDict[tuple[bytes, str], tuple[ImageCms.ImageCmsTransform | None, str]] = OrderedDict()
_transforms_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """A reading of a file's colours. primaries: x, y of white, red, green, blue. code_points: (primaries, transfer)."""

    icc: bytes | None = None
    code_points: tuple[int, int] | None = None
    gamma: float | None = None
    primaries: tuple[float, ...] | None = None
    as_ycbcr: bool = False
    grey: bool = False  # stored as one channel

    @property
    def plain(self) -> bool:
        """Whether nothing is stated: sRGB."""
        return self.icc is None and self.gamma is None and self.code_points is None and not self.as_ycbcr


def read_colours(image: Image.Image) -> tuple[Colours, ...]:
    """The readings of its colours: first as browsers read them, then as if nothing were stated.

    Browsers take a PNG's code points before a profile (elsewhere after it), a profile before gAMA, an sRGB chunk
    instead of gAMA, and cHRM only beside gAMA. FFmpeg reads RGB that a JPEG stores as if it were YCbCr.
    """
    info: Mapping[str | tuple[int, int], Any] = image.info
    grey = is_grey(image)
    profiles = [icc for icc in (info.get("icc_profile"), *info.get(OTHER_PROFILES, ())) if isinstance(icc, bytes)]
    readings = [Colours(icc=icc, grey=grey) for icc in profiles if icc]
    points = info.get(CODE_POINTS)
    if points is not None and states_colours(*points):
        readings.insert(0 if image.format == "PNG" else len(readings), Colours(code_points=points, grey=grey))
    readings += _read_gamma(image, grey)
    readings.append(Colours(grey=grey))
    return (*readings, Colours(as_ycbcr=True)) if info.get(STORED_RGB) else tuple(readings)


def _read_gamma(image: Image.Image, grey: bool) -> list[Colours]:
    """The reading by gAMA and cHRM of a PNG, or by those that a BMP states; none where there are none."""
    gamma = image.info.get("gamma") if image.format in ("PNG", "BMP") and "srgb" not in image.info else None
    if not isinstance(gamma, float) or gamma <= 0:
        return []
    primaries = image.info.get("chromaticity")
    usable = isinstance(primaries, tuple) and len(primaries) == 8
    return [Colours(gamma=gamma, primaries=primaries if usable else None, grey=grey)]


def is_grey(image: Image.Image) -> bool:
    """Whether its file stores one channel of brightness."""
    return STORED_GREY in image.info or image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def to_srgb(image: Image.Image, colours: Colours) -> tuple[Image.Image, str]:
    """A picture of mode L, RGB, CMYK or LAB as RGB in sRGB; and why its profile was ignored, or ""."""
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return _apply(image, lab), ""
    if colours.icc is not None:
        return _by_profile(image, colours.icc, grey=colours.grey)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if colours.as_ycbcr:
        return Image.merge("YCbCr", rgb.split()).convert("RGB"), ""
    if colours.code_points is not None:
        return Image.fromarray(_by_code_points(np.asarray(rgb), *colours.code_points)), ""
    if colours.gamma is None:
        return rgb, ""
    return Image.fromarray(_by_gamma(np.asarray(rgb), colours.gamma, colours.primaries)), ""


def _by_profile(image: Image.Image, icc: bytes, *, grey: bool) -> tuple[Image.Image, str]:
    transform, mode, note = _find_transform(icc, image.mode, grey=grey)
    if transform is None:
        return (image if image.mode == "RGB" else image.convert("RGB")), note
    return _apply(image if image.mode == mode else image.convert(mode), transform), note


def _find_transform(icc: bytes, mode: str, *, grey: bool) -> tuple[ImageCms.ImageCmsTransform | None, str, str]:
    """(the transform or None, the mode that it takes, why a needed one is missing)."""
    wanted = "L" if grey and mode == "RGB" else mode  # a grey picture over a background is RGB by now
    key = hashlib.blake2b(icc, digest_size=16).digest(), wanted
    with _transforms_lock:
        made = _transforms.get(key)
    if made is None:
        made = _make_transform(icc, wanted)
        with _transforms_lock:
            _transforms[key] = made
            while len(_transforms) > _KEPT_TRANSFORMS:
                _transforms.popitem(last=False)
    transform, note = made
    return transform, wanted if transform is None else str(transform.input_mode), note


def _make_transform(icc: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    if len(icc) > MAX_PROFILE_BYTES:
        return None, f"colour profile ignored: {len(icc)} bytes"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(_mend_header(icc)))
        taken = _SPACES.get(str(profile.profile.xcolor_space).strip())
        if mode == "L" and taken == "RGB":
            mode = "RGB"  # a grey picture with a colour profile is shown through it
        if taken != mode:
            return None, "colour profile ignored: it is for another kind of picture"
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
        changes = mode == "CMYK" or _changes_colours(transform, mode)
    except _PROFILE_ERRORS as error:
        return None, f"colour profile ignored: {' '.join(str(error).split())[:80]}"
    return (transform if changes else None), ""


def _mend_header(icc: bytes) -> bytes:
    """With the length that it has, and a class of pictures: browsers ask for neither, and lcms does."""
    kind = icc[12:16] if icc[12:16] in _PROFILE_CLASSES else b"mntr"
    return len(icc).to_bytes(4, "big") + icc[4:12] + kind + icc[16:] if len(icc) >= 128 else icc


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether any of a grid of colours is shown differently than in sRGB."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        grid = Image.fromarray(steps[None, :])
    else:
        cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 3)
        grid = Image.fromarray(np.ascontiguousarray(cube))
    before = np.asarray(grid.convert("RGB")).astype(np.int16)
    return bool(np.abs(np.asarray(_apply(grid, transform)).astype(np.int16) - before).max() > _INVISIBLE)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    shown: Image.Image = transform.apply(image)
    return shown


def _by_gamma(pixels: U8, gamma: float, primaries: tuple[float, ...] | None) -> U8:
    """uint8 [H,W,3], whose numbers are light to the power of `gamma`, as sRGB."""
    matrix = _to_linear_srgb(primaries) if primaries else None
    if matrix is None and abs(gamma / _SRGB_GAMMA - 1) <= _GAMMA_TOLERANCE:
        return pixels
    # Beyond 0.01..10 everything is black or white.
    linear = (np.arange(256) / 255.0) ** (1 / min(10.0, max(0.01, gamma)))
    return _from_light(pixels, linear, matrix)


def _by_code_points(pixels: U8, primaries: int, transfer: int) -> U8:
    """uint8 [H,W,3] whose numbers are encoded by code points of H.273, as sRGB."""
    stated = primaries_of(primaries)
    matrix = _to_linear_srgb(stated) if stated else _FROM_XYZ * _D65 if primaries == IS_XYZ else None
    linear = to_light(transfer)
    if linear is None:
        if matrix is None:
            return pixels
        numbers = np.arange(256) / 255.0
        linear = np.where(numbers <= 0.04045, numbers / 12.92, ((numbers + 0.055) / 1.055) ** 2.4)
    return _from_light(pixels, linear, matrix)


def _from_light(pixels: U8, linear: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64] | None) -> U8:
    """uint8 [H,W,3] -> sRGB. linear: light [256] of each number. matrix: to the primaries of sRGB."""
    if matrix is None:
        table = _encode_srgb(linear)
        return table[pixels]
    light = linear.astype(np.float32)[pixels] @ matrix.T.astype(np.float32)
    return _encode_srgb(light)


def _encode_srgb(light: npt.NDArray[Any]) -> U8:
    light = np.clip(light, 0.0, 1.0)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255.0), dtype=np.uint8)


def _to_linear_srgb(primaries: tuple[float, ...]) -> npt.NDArray[np.float64] | None:
    """The matrix from a PNG's own primaries, white to white; None where they are sRGB's or invalid."""
    points = np.array(primaries, dtype=np.float64).reshape(4, 2)
    if (points[:, 1] <= 0).any() or not np.isfinite(points).all():
        return None
    xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(axis=1)) / points[:, 1]])
    try:
        own = xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])
    except np.linalg.LinAlgError:
        return None
    # Scaled in XYZ to D65, the white of sRGB: white stays white.
    matrix: npt.NDArray[np.float64] = _FROM_XYZ @ (np.diag(_D65 / xyz[:, 0]) @ own)
    return None if np.abs(matrix - np.eye(3)).max() < 0.02 or not np.isfinite(matrix).all() else matrix
