"""What a file is, by its first bytes: a link's own word for it is not trusted. Pure."""

from __future__ import annotations

import re

from renderbell.task import FileKind

__all__ = ["HEAD_BYTES", "sniff"]

HEAD_BYTES = 1024  # what `sniff` needs: three packets of a transport stream, an `ftyp` box, an EBML header

_NO_VIDEO_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"crx ", b"jxl ", b"jp2 ", b"jpx ", b"jpm "})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"mif1", b"msf1", b"mif2", b"miaf"})
_M4V_BRANDS = frozenset({b"M4V ", b"M4VH", b"M4VP"})
_QUICKTIME_BOXES = frozenset({b"moov", b"wide", b"free", b"skip", b"pnot"})
_MAX_FTYP = 1024  # a box of a few tens of bytes
_MAX_SIZE = 1 << 50
_BRAND = re.compile(rb"[\w .\-\x00]{4}")
_FLV = re.compile(
    rb"FLV\x01[\x00\x01\x04\x05]\x00\x00\x00\x09", re.DOTALL
)  # audio, video or both; where the tags begin
_MARKUP = re.compile(rb"<(?:!doctype|html|script|iframe)\b", re.IGNORECASE)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # what the MIME Sniffing Standard calls binary data bytes
_PACKET = 188  # bytes of a transport stream's packet; on Blu-ray 4 bytes of time stand before each
_M2TS_PACKET = 192


def sniff(head: bytes, kind: FileKind) -> tuple[str, str] | None:
    """The extension and content type that a file's first bytes (1 KiB is enough) tell; None if it is not of `kind`."""
    return _sniff_image(head) if kind is FileKind.IMAGE else _sniff_video(head)


def _sniff_video(head: bytes) -> tuple[str, str] | None:
    if _MARKUP.search(head):  # a page in disguise
        return None
    box = head[4:8]
    if box in {b"ftyp", b"styp"}:
        return _sniff_ftyp_video(head)
    if (box in _QUICKTIME_BOXES and head[0] == 0 and int.from_bytes(head[:4]) >= 8) or (
        box == b"mdat" and _is_media_size(head)
    ):
        return "mov", "video/quicktime"  # files from before `ftyp` was invented
    if head.startswith(b"\x1aE\xdf\xa3"):
        doc_type = _ebml_doc_type(head)
        return {b"webm": ("webm", "video/webm"), b"matroska": ("mkv", "video/matroska")}.get(doc_type)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi", "video/x-msvideo"
    if _FLV.match(head):
        return "flv", "video/x-flv"
    if head.startswith((b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")):
        return "mpg", "video/mpeg"
    if _has_sync(head, 0, _PACKET):
        return "ts", "video/mp2t"
    if _has_sync(head, 4, _M2TS_PACKET):
        return "m2ts", "video/mp2t"
    return None


def _sniff_ftyp_video(head: bytes) -> tuple[str, str] | None:
    brands = _brands(head)
    if not brands or not 12 <= int.from_bytes(head[:4]) <= _MAX_FTYP:
        return None
    major = brands[0]
    if not _BRAND.fullmatch(major):
        return None
    if major in _NO_VIDEO_BRANDS | _HEIC_BRANDS | _AVIF_BRANDS | _HEIF_BRANDS:
        return None
    if major == b"qt  ":
        return "mov", "video/quicktime"
    if major in _M4V_BRANDS:
        return "m4v", "video/x-m4v"
    if major.startswith(b"3gp"):
        return "3gp", "video/3gpp"
    if major.startswith(b"3g2"):
        return "3g2", "video/3gpp2"
    return "mp4", "video/mp4"  # isom, iso2..9, mp41, mp42, avc1, dash, …: there are dozens


def _is_media_size(head: bytes) -> bool:
    """Whether the length of an `mdat` box is one: up to the end (0), in 64 bits (1), or a number that is no text."""
    size = int.from_bytes(head[:4])
    if size == 1:
        return 16 <= int.from_bytes(head[8:16]) < _MAX_SIZE
    return size == 0 or (size >= 8 and _NO_TEXT.search(head[:4]) is not None)


def _sniff_image(head: bytes) -> tuple[str, str] | None:
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg", "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png", "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif", "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp", "image/webp"
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        major = brands[0] if brands else b""
        shared = major in _HEIF_BRANDS
        if major in _AVIF_BRANDS or (shared and not _AVIF_BRANDS.isdisjoint(brands)):
            return "avif", "image/avif"
        if major in _HEIC_BRANDS or (shared and not _HEIC_BRANDS.isdisjoint(brands)):
            return "heic", "image/heic"
        if shared:
            return "heif", "image/heif"
    return None


def _brands(head: bytes) -> list[bytes]:
    """The major brand and the compatible ones of an `ftyp` box; the four bytes between them are a version."""
    end = min(int.from_bytes(head[:4]), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    return brands if len(head) >= 12 else []


def _ebml_doc_type(head: bytes) -> bytes:
    """The value of the DocType element (id 0x4282, its length in one byte) of an EBML header."""
    at = head.find(b"\x42\x82", 4)
    if at < 0 or len(head) < at + 3 or not head[at + 2] & 0x80:
        return b""
    return head[at + 3 : at + 3 + (head[at + 2] & 0x7F)].rstrip(b"\x00")


def _has_sync(head: bytes, first: int, packet: int) -> bool:
    """Whether a sync byte stands at the same place of three packets running."""
    return len(head) > first + 2 * packet and all(head[first + k * packet] == 0x47 for k in range(3))


# -- links to what is stored
