"""Finds the Debian fonts the pictures are drawn with, by family, split into seen and held out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

ROOT = Path("/usr/share/fonts")


class MissingFontError(RuntimeError):
    """A font file is not installed; the message holds the command that installs it."""


@dataclass(frozen=True, slots=True)
class Face:
    """One font file (and the face inside a collection)."""

    path: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """Fonts of one design: Debian package, files under /usr/share/fonts."""

    package: str
    files: tuple[str, ...]
    cjk: bool = False
    held_out: bool = False


def _named(folder: str, stem: str, styles: str, suffix: str = "ttf") -> tuple[str, ...]:
    return tuple(f"{folder}/{stem}{style}.{suffix}" for style in styles.split())


_T, _O = "truetype", "opentype"
FAMILIES: dict[str, Family] = {
    "DejaVu Sans": Family(
        "fonts-dejavu-core fonts-dejavu-extra",
        (
            f"{_T}/dejavu/DejaVuSans.ttf",
            *_named(f"{_T}/dejavu", "DejaVuSans", "-Bold Condensed Condensed-Bold"),
        ),
    ),
    "DejaVu Serif": Family(
        "fonts-dejavu-core fonts-dejavu-extra",
        (
            f"{_T}/dejavu/DejaVuSerif.ttf",
            *_named(f"{_T}/dejavu", "DejaVuSerif", "-Bold Condensed"),
        ),
    ),
    "DejaVu Sans Mono": Family(
        "fonts-dejavu-core", _named(f"{_T}/dejavu", "DejaVuSansMono", "-Bold")
    ),
    "Liberation Sans": Family(
        "fonts-liberation",
        _named(f"{_T}/liberation", "LiberationSans", "-Bold -Regular")
        + _named(f"{_T}/liberation", "LiberationSansNarrow", "-Bold"),
    ),
    "Liberation Serif": Family(
        "fonts-liberation",
        _named(f"{_T}/liberation", "LiberationSerif", "-Bold -Regular"),
    ),
    "Liberation Mono": Family(
        "fonts-liberation", _named(f"{_T}/liberation", "LiberationMono", "-Bold -Regular")
    ),
    "FreeSans": Family("fonts-freefont-ttf", _named(f"{_T}/freefont", "FreeSans", "Bold")),
    "FreeSerif": Family("fonts-freefont-ttf", _named(f"{_T}/freefont", "FreeSerif", "Bold")),
    "FreeMono": Family("fonts-freefont-ttf", _named(f"{_T}/freefont", "FreeMono", "Bold")),
    "Hack": Family("fonts-hack", _named(f"{_T}/hack", "Hack", "-Bold -Regular")),
    "JetBrains Mono": Family(
        "fonts-jetbrains-mono",
        _named(f"{_T}/jetbrains-mono", "JetBrainsMono", "-Bold -Regular -Medium"),
    ),
    "Open Sans": Family(
        "fonts-open-sans",
        _named(f"{_T}/open-sans", "OpenSans", "-Bold -Regular -Semibold -CondBold"),
    ),
    "Noto Sans": Family(
        "fonts-noto-core",
        _named(f"{_T}/noto", "NotoSans", "-Bold -Regular"),
    ),
    "Noto Serif": Family(
        "fonts-noto-core",
        _named(f"{_T}/noto", "NotoSerif", "-Bold -Regular"),
    ),
    "Roboto": Family(
        "fonts-roboto-unhinted",
        _named(f"{_T}/roboto/unhinted", "RobotoCondensed", "-Bold -Regular -Medium")
        + _named(f"{_T}/roboto/unhinted/RobotoTTF", "Roboto", "-Bold -Regular -Black"),
    ),
    "Inter": Family(
        "fonts-inter",
        _named(f"{_O}/inter", "Inter", "-Bold -Regular -Medium -ExtraBold", "otf")
        + _named(f"{_O}/inter", "InterDisplay", "-Bold", "otf"),
    ),
    "Comic Neue": Family(
        "fonts-comic-neue", _named(f"{_O}/comic-neue", "ComicNeue", "-Bold -Regular", "otf")
    ),
    "Lato": Family(
        "fonts-lato",
        _named(f"{_T}/lato", "Lato", "-Bold -Regular -Heavy"),
        held_out=True,
    ),
    "Cantarell": Family(
        "fonts-cantarell",
        _named(f"{_O}/cantarell", "Cantarell", "-Bold -Regular -ExtraBold", "otf"),
        held_out=True,
    ),
    "Roboto Slab": Family(
        "fonts-roboto-slab",
        _named(f"{_O}/roboto/slab", "RobotoSlab", "-Bold -Regular", "otf"),
        held_out=True,
    ),
    "Fira Code": Family(
        "fonts-firacode",
        _named(f"{_T}/firacode", "FiraCode", "-Bold -Regular -Medium"),
        held_out=True,
    ),
    "Noto Sans CJK": Family(
        "fonts-noto-cjk", _named(f"{_O}/noto", "NotoSansCJK", "-Bold -Regular", "ttc"), cjk=True
    ),
    "Noto Serif CJK": Family(
        "fonts-noto-cjk", _named(f"{_O}/noto", "NotoSerifCJK", "-Bold -Regular", "ttc"), cjk=True
    ),
    "WenQuanYi Micro Hei": Family("fonts-wqy-microhei", (f"{_T}/wqy/wqy-microhei.ttc",), cjk=True),
    "Droid Sans Fallback": Family(
        "fonts-droid-fallback", (f"{_T}/droid/DroidSansFallbackFull.ttf",), cjk=True
    ),
    "AR PL UKai": Family("fonts-arphic-ukai", (f"{_T}/arphic/ukai.ttc",), cjk=True),
    "AR PL KaitiM GB": Family(
        "fonts-arphic-gkai00mp", (f"{_T}/arphic-gkai00mp/gkai00mp.ttf",), cjk=True
    ),
    "WenQuanYi Zen Hei": Family(
        "fonts-wqy-zenhei", (f"{_T}/wqy/wqy-zenhei.ttc",), cjk=True, held_out=True
    ),
    "AR PL UMing": Family("fonts-arphic-uming", (f"{_T}/arphic/uming.ttc",), True, True),
    "AR PL SungtiL GB": Family(
        "fonts-arphic-gbsn00lp", (f"{_T}/arphic-gbsn00lp/gbsn00lp.ttf",), True, True
    ),
}
# In Noto's collections face 2 is Simplified Chinese.
_FACE_INDEX = {"NotoSansCJK": 2, "NotoSerifCJK": 2}


@cache
def families(cjk: bool, held_out: bool) -> tuple[tuple[Face, ...], ...]:
    """Return the faces of every family of one kind, a tuple a family.

    Raises:
        MissingFontError: a file is not installed.
    """
    found = [f for f in FAMILIES.values() if f.cjk == cjk and f.held_out == held_out]
    return tuple(tuple(_face(name, family.package) for name in family.files) for family in found)


def _face(name: str, package: str) -> Face:
    path = ROOT / name
    if not path.is_file():
        raise MissingFontError(f"no font file {path}; install it: apt-get install -y {package}")
    return Face(str(path), _FACE_INDEX.get(path.stem.split("-")[0], 0))


def missing_packages() -> list[str]:
    """Return the Debian packages of which a font file is not installed."""
    lacking = (
        f.package for f in FAMILIES.values() if not all((ROOT / n).is_file() for n in f.files)
    )
    return sorted({name for packages in lacking for name in packages.split()})


@lru_cache(maxsize=4096)
def load(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Return the face at a pixel size."""
    return ImageFont.truetype(
        face.path, size, index=face.index, layout_engine=ImageFont.Layout.BASIC
    )


@lru_cache(maxsize=65536)
def advance(face: Face, character: str) -> float:
    """Return a character's advance in em."""
    return float(load(face, 64).getlength(character)) / 64


if __name__ == "__main__":
    print(*missing_packages())
