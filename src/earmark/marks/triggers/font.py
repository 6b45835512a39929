"""A bitmap font of 5 x 7 pixels, so that text on a trigger does not depend on the fonts of a machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.errors import BadInput

__all__ = ["GLYPHS", "typeset"]

HEIGHT, WIDTH = 7, 5

# Seven rows per letter, '#' where it is inked.
_SHEET = """
A .###. #...# #...# ##### #...# #...# #...#
B ####. #...# #...# ####. #...# #...# ####.
C .###. #...# #.... #.... #.... #...# .###.
D ####. #...# #...# #...# #...# #...# ####.
E ##### #.... #.... ####. #.... #.... #####
F ##### #.... #.... ####. #.... #.... #....
G .###. #...# #.... #.### #...# #...# .###.
H #...# #...# #...# ##### #...# #...# #...#
I .###. ..#.. ..#.. ..#.. ..#.. ..#.. .###.
J ..### ...#. ...#. ...#. ...#. #..#. .##..
K #...# #..#. #.#.. ##... #.#.. #..#. #...#
L #.... #.... #.... #.... #.... #.... #####
M #...# ##.## #.#.# #.#.# #...# #...# #...#
N #...# ##..# ##..# #.#.# #..## #..## #...#
O .###. #...# #...# #...# #...# #...# .###.
P ####. #...# #...# ####. #.... #.... #....
Q .###. #...# #...# #...# #.#.# #..#. .##.#
R ####. #...# #...# ####. #.#.. #..#. #...#
S .#### #.... #.... .###. ....# ....# ####.
T ##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..
U #...# #...# #...# #...# #...# #...# .###.
V #...# #...# #...# #...# .#.#. .#.#. ..#..
W #...# #...# #...# #.#.# #.#.# ##.## #...#
X #...# #...# .#.#. ..#.. .#.#. #...# #...#
Y #...# #...# .#.#. ..#.. ..#.. ..#.. ..#..
Z ##### ....# ...#. ..#.. .#... #.... #####
0 .###. #...# #..## #.#.# ##..# #...# .###.
1 ..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.
2 .###. #...# ....# ..##. .#... #.... #####
3 ##### ...#. ..#.. ...#. ....# #...# .###.
4 ...#. ..##. .#.#. #..#. ##### ...#. ...#.
5 ##### #.... ####. ....# ....# #...# .###.
6 ..##. .#... #.... ####. #...# #...# .###.
7 ##### ....# ...#. ..#.. ..#.. ..#.. ..#..
8 .###. #...# #...# .###. #...# #...# .###.
9 .###. #...# #...# .#### ....# ...#. .##..
. ..... ..... ..... ..... ..... .##.. .##..
, ..... ..... ..... ..... .##.. ..#.. .#...
: ..... .##.. .##.. ..... .##.. .##.. .....
; ..... .##.. .##.. ..... .##.. ..#.. .#...
! ..#.. ..#.. ..#.. ..#.. ..#.. ..... ..#..
? .###. #...# ....# ...#. ..#.. ..... ..#..
- ..... ..... ..... .###. ..... ..... .....
_ ..... ..... ..... ..... ..... ..... #####
+ ..... ..#.. ..#.. ##### ..#.. ..#.. .....
= ..... ..... ##### ..... ##### ..... .....
/ ....# ....# ...#. ..#.. .#... #.... #....
' ..#.. ..#.. .#... ..... ..... ..... .....
( ...#. ..#.. .#... .#... .#... ..#.. ...#.
) .#... ..#.. ...#. ...#. ...#. ..#.. .#...
# .#.#. .#.#. ##### .#.#. ##### .#.#. .#.#.
* ..... ..#.. #.#.# .###. #.#.# ..#.. .....
& .##.. #..#. #.#.. .#... #.#.# #..#. .##.#
@ .###. #...# #.### #.#.# #.##. #.... .####
% ##..# ##..# ...#. ..#.. .#... #..## #..##
"""

GLYPHS: dict[str, NDArray[np.bool_]] = {
    line[0]: np.array([[mark == "#" for mark in row] for row in line[2:].split()])
    for line in _SHEET.strip().split("\n")
}
GLYPHS[" "] = np.zeros((HEIGHT, WIDTH), bool)


def typeset(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """The ink of `text` in capitals, in the fewest lines that fit, and then at the largest whole scale.

    Lines break anywhere, as short strings on small images must.

    Args:
        text: letters, digits, spaces and . , : ; ! ? - _ + = / ' ( ) # * & @ %.
        height: the height that the text may take.
        width: the width that the text may take.

    Raises:
        BadInput: an empty text, a character that the font does not have, or a text that does not fit at scale 1.

    >>> typeset("Hi", 7, 11).shape
    (7, 11)
    """
    letters = text.upper()
    missing = sorted(set(letters) - set(GLYPHS))
    if not letters.strip() or missing:
        raise BadInput(f"text to stamp: expected letters, digits or {''.join(list(GLYPHS)[36:])!r}, got {text!r:.40}")
    for lines in range(1, len(letters) + 1):
        per_line = -(-len(letters) // lines)
        scale = min(height // (lines * (HEIGHT + 1) - 1), width // (per_line * (WIDTH + 1) - 1))
        if scale >= 1:
            block = _block([letters[at : at + per_line] for at in range(0, len(letters), per_line)])
            return block.repeat(scale, 0).repeat(scale, 1)
    raise BadInput(f"{text!r:.40} does not fit into {height} x {width} pixels at 5 x 7 a letter; give a shorter text")


def _block(lines: list[str]) -> NDArray[np.bool_]:
    """The lines one below the other, one pixel between letters and between lines."""
    longest = max(map(len, lines))
    rows = [np.hstack([np.pad(GLYPHS[letter], ((0, 1), (0, 1))) for letter in line.ljust(longest)]) for line in lines]
    return np.vstack(rows)[:-1, :-1]
