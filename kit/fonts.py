"""Save Matplotlib's figures with fonts that have all letters of their texts: class names are in any script.

save_figure(figure, Path("confusion.png"), dpi=120)
"""

import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import category

from kit.console import say

USUAL = "DejaVu Sans"  # comes with Matplotlib
INVISIBLE = ("Cc", "Cf", "Mn")
say_once = cache(say)
MISSING = """note: no installed font has some letters of the class names; pictures show squares in their place. \
On Debian and Ubuntu: apt install fonts-noto-cjk (Chinese, Japanese, Korean), fonts-noto-core (most other scripts), \
fonts-symbola (emoji)"""


def save_figure(figure: Any, path: Path, **options: Any) -> None:
    """Save a figure, drawn with installed fonts that have the letters of its texts; `$` starts no formula in them.

    Prints one line where no font has them. options: of Matplotlib's `savefig`.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families = [USUAL, *fonts_for(frozenset("".join(text.get_text() for text in texts)))]
    for text in texts:
        text.set(fontfamily=families, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")
        figure.savefig(path, **options)


@cache
def fonts_for(letters: frozenset[str]) -> list[str]:
    """The names of further fonts that together have the letters that `USUAL` lacks; as few as possible.

    All font files of the system are read, because Matplotlib's own list is older than fonts installed since.
    """
    from matplotlib import font_manager

    usual = _Font.read(font_manager.findfont(USUAL))
    missing = {letter for letter in letters if category(letter) not in INVISIBLE} - usual.letters
    files = sorted(font_manager.findSystemFonts()) if missing else []
    fonts = [font for font in map(_Font.read, files) if font and font.letters & missing]
    chosen = []
    while missing and fonts:
        best = max(fonts, key=lambda font: (len(font.letters & missing), font.plain))
        missing -= best.letters
        fonts = [font for font in fonts if font.letters & missing]
        font_manager.fontManager.addfont(best.path)
        chosen.append(best.name)
    if missing:
        say_once(MISSING)
    return chosen


class _Font(NamedTuple):
    path: str
    name: str
    plain: bool
    letters: set[str]

    @classmethod
    def read(cls, path: str) -> "_Font | None":
        """The font of a file; None where Matplotlib cannot draw with it, as with coloured emoji."""
        from matplotlib.ft2font import FT2Font

        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):
            return None
        if not font.scalable or "lastresort" in font.postscript_name.lower():  # that font draws a box for every letter
            return None
        plain = font.style_name == "Regular" and "Sans" in font.family_name
        return cls(path, font.family_name, plain, set(map(chr, font.get_charmap())))
