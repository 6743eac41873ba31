"""The type of a file, told from its first bytes; and whether its name claims a picture or video. Pure."""

from __future__ import annotations

from enum import StrEnum

HEAD_BYTES = 4096  # enough for every signature below; MPEG-TS needs three packets of 192 bytes


class MediaType(StrEnum):
    """A container or picture format, told by content."""

    JPEG = "jpeg"
    PNG = "png"  # also APNG
    WEBP = "webp"
    AVIF = "avif"
    HEIC = "heic"
    GIF = "gif"
    BMP = "bmp"
    TIFF = "tiff"
    JPEG2000 = "jpeg2000"
    MP4 = "mp4"  # also MOV, M4V and 3GP
    MATROSKA = "matroska"  # also WebM
    AVI = "avi"
    MPEG_TS = "mpeg-ts"
    MPEG_PS = "mpeg-ps"
    FLV = "flv"
    ASF = "asf"  # WMV
    OGG = "ogg"
    ELEMENTARY = "elementary"  # a bare stream of one codec: H.264, HEVC, MPEG-4
    OTHER = "other"  # a picture or video without a decoder here: JPEG XL, PSD, camera raw, RealMedia

    @property
    def is_video(self) -> bool:
        """Whether it is decoded as a video."""
        return self in _VIDEO


_VIDEO = frozenset(
    {
        MediaType.MP4,
        MediaType.MATROSKA,
        MediaType.AVI,
        MediaType.MPEG_TS,
        MediaType.MPEG_PS,
        MediaType.FLV,
        MediaType.ASF,
        MediaType.OGG,
        MediaType.ELEMENTARY,
    }
)

_PREFIXES: tuple[tuple[bytes, MediaType], ...] = (
    (b"\xff\xd8\xff", MediaType.JPEG),
    (b"\x89PNG\r\n\x1a\n", MediaType.PNG),
    (b"GIF87a", MediaType.GIF),
    (b"GIF89a", MediaType.GIF),
    (b"II*\x00", MediaType.TIFF),
    (b"MM\x00*", MediaType.TIFF),
    (b"II+\x00", MediaType.TIFF),
    (b"MM\x00+", MediaType.TIFF),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", MediaType.JPEG2000),
    (b"\xff\x4f\xff\x51", MediaType.JPEG2000),
    (b"\x1aE\xdf\xa3", MediaType.MATROSKA),
    (b"FLV\x01", MediaType.FLV),
    (b"\x00\x00\x01\xba", MediaType.MPEG_PS),
    (b"\x00\x00\x01\xb3", MediaType.MPEG_PS),
    (b"0&\xb2u\x8ef\xcf\x11", MediaType.ASF),
    (b"OggS\x00", MediaType.OGG),
    (b"\xff\x0a", MediaType.OTHER),  # JPEG XL codestream
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", MediaType.OTHER),
    (b"8BPS\x00", MediaType.OTHER),  # Photoshop
    (b"v/1\x01", MediaType.OTHER),  # OpenEXR
    (b".RMF\x00", MediaType.OTHER),  # RealMedia
    (b"DDS |\x00", MediaType.OTHER),
    (b"\x00\x00\x01\x00\x01\x00", MediaType.OTHER),  # an icon
    (b"FUJIFILMCCD-RAW", MediaType.OTHER),  # camera raw: Fuji, Olympus, Panasonic, Minolta, Sigma
    (b"IIRO", MediaType.OTHER),
    (b"IIRS", MediaType.OTHER),
    (b"MMOR", MediaType.OTHER),
    (b"IIU\x00", MediaType.OTHER),
    (b"\x00MRM", MediaType.OTHER),
    (b"FOVb", MediaType.OTHER),
    (b"II\xbc", MediaType.OTHER),  # JPEG XR
)

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # movies older than `ftyp`
_RIFF_FORMS = {b"WEBP": MediaType.WEBP, b"AVI ": MediaType.AVI}
_HEVC_FIRST = frozenset({0x40, 0x42, 0x44, 0x46, 0x4E})  # parameter sets, a delimiter, a message
_H264_FIRST = frozenset({6, 7, 8, 9})  # the same
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

# fmt: off
_EXTENSIONS = frozenset(
    {
        "jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "avif", "avifs", "heic", "heif", "hif",
        "gif", "bmp", "dib", "tif", "tiff", "jp2", "j2k", "jpx", "jpf", "jpm", "jxl", "ico", "svg", "psd",
        "exr", "dds", "tga", "pcx", "ppm", "pgm", "pbm", "pnm", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf",
        "rw2", "raf", "nrw", "pef", "srw", "mrw", "x3f", "jxr", "wdp",
        "mp4", "m4v", "mov", "qt", "3gp", "3g2", "webm", "mkv", "avi", "ts", "mts", "m2ts", "mpg",
        "mpeg", "mpe", "m2v", "vob", "flv", "f4v", "wmv", "asf", "ogv", "ogm", "rm", "rmvb",
    }
)
# fmt: on
# Names of sound, and the containers that hold it: these may hold films, too.
_SOUND_EXTENSIONS = frozenset({"m4a", "m4b", "mka", "ogg", "oga", "opus", "wma"})
_HOLD_SOUND = frozenset({MediaType.MP4, MediaType.MATROSKA, MediaType.OGG, MediaType.ASF})
_STILL_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "jp2", "j2k", "jpx", "jpf", "jpm"})


def sniff(head: bytes) -> MediaType | None:
    """The type of the first bytes (HEAD_BYTES are enough); None: not a known picture or video."""
    for prefix, media_type in _PREFIXES:
        if head.startswith(prefix):
            return media_type
    if head[:4] == b"RIFF":
        return _RIFF_FORMS.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return MediaType.BMP
    if head[4:8] == b"ftyp":
        return _sniff_brand(head)
    if _is_old_quicktime(head):
        return MediaType.MP4
    return _sniff_stream(head)


def hides_media(head: bytes, suffix: str) -> bool:
    """Whether a file that isn't named as one begins as a picture or a video; a sound file's container does not count.

    suffix: of the name, in lower case, without its dot.
    """
    found = sniff(head)
    return found is not None and not (suffix in _SOUND_EXTENSIONS and found in _HOLD_SOUND)


def names_media(name: str) -> bool:
    """Whether the extension of `name` is one of pictures or videos."""
    return name.rpartition("/")[2].rpartition(".")[2].lower() in _EXTENSIONS and "." in name


def names_moving(name: str) -> bool:
    """Whether the extension of `name` is one of files that may hold more than one picture."""
    return names_media(name) and name.rpartition(".")[2].lower() not in _STILL_EXTENSIONS


def _sniff_stream(head: bytes) -> MediaType | None:
    if _has_sync(head, 0, 188) or _has_sync(head, 4, 192):
        return MediaType.MPEG_TS
    return MediaType.ELEMENTARY if elementary_codec(head) else None


def elementary_codec(head: bytes) -> str | None:
    """The codec of a bare stream ("h264", "hevc", "m4v", "mpegvideo": FFmpeg's names), told from its first unit."""
    for code in (b"\x00\x00\x01", b"\x00\x00\x00\x01"):
        if head.startswith(code) and len(head) >= len(code) + 2:
            return _codec_of_unit(head[len(code) :])
    return None


def _codec_of_unit(unit: bytes) -> str | None:
    first = unit[0]
    if first == 0xB3:
        return "mpegvideo"
    if first in (0xB0, 0xB5) or unit.startswith(b"\x00\x00\x01"):
        return "m4v"
    if first in _HEVC_FIRST and unit[1] == 1:  # layer 0, first temporal layer
        return "hevc"
    return "h264" if first < 0x80 and first & 0x1F in _H264_FIRST else None


def _is_old_quicktime(head: bytes) -> bool:
    size = int.from_bytes(head[:4], "big")  # 1: the size follows as 64 bits
    return head[4:8] in _QUICKTIME_BOXES and (size == 1 or size >= 8)


def _sniff_brand(head: bytes) -> MediaType:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    # HEIC and AVIF both list `mif1`, and a movie may list picture brands, so the major brand decides first.
    major = brands[0]
    if major in _AVIF_BRANDS:
        return MediaType.AVIF
    if major == b"crx ":
        return MediaType.OTHER  # Canon raw
    if major in _HEIC_BRANDS:
        is_avif = major in (b"mif1", b"msf1") and _AVIF_BRANDS.intersection(brands)
        return MediaType.AVIF if is_avif else MediaType.HEIC
    return MediaType.MP4


def _has_sync(head: bytes, offset: int, packet: int) -> bool:
    # Three packets in step: a text may begin with "G", but hardly has one at each of these places.
    return len(head) > offset + 2 * packet and all(head[offset + k * packet] == 0x47 for k in range(3))
