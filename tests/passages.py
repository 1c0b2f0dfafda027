"""A topic task with four classes from a public-domain text: which part of the King James Bible a passage is from.

`python tests/passages.py verses.txt OUTPUT` reads a verse a line, as `bible -f -l 5000 gen1:1-rev22:21` of Debian's
package `bible-kjv` prints them, and writes `train.csv` and `test.csv`. No chapter is in both.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from itertools import groupby
from pathlib import Path

VERSE = re.compile(r"(\w+?)(\d+):\d+ (.*)")
VERSES = 4
"""In a passage: about a hundred tokens."""
PARTS = {
    "history": "Josh Jdgs Ruth 1Sm 2Sm 1Ki 2Ki 1Chr 2Chr Ezra Neh Est",
    "poetry": "Job Psa Prv Eccl SSol",
    "prophets": "Isa Jer Lam Eze Dan Hos Joel Amos Obad Jonah Mic Nahum Hab Zep Hag Zec Mal",
    "letters": "Rom 1Cor 2Cor Gal Eph Phi Col 1Th 2Th 1Tim 2Tim Titus Phmn Heb Jas 1Pet 2Pet 1Jn 2Jn 3Jn Jude",
}


def main(verses: Path, output: Path) -> None:
    """Write both files."""
    part_of = {book: part for part, books in PARTS.items() for book in books.split()}
    matches = filter(None, map(VERSE.fullmatch, verses.read_text(encoding="utf-8").splitlines()))
    chapters = [(part_of.get(book), [m[3] for m in own]) for (book, _), own in groupby(matches, lambda m: (m[1], m[2]))]
    kept = [(part, own) for part, own in chapters if part]
    random.Random(0).shuffle(kept)
    third = len(kept) // 3
    for name, some in (("test", kept[:third]), ("train", kept[third:])):
        with (output / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = [(" ".join(own[i : i + VERSES]), part) for part, own in some for i in range(0, len(own), VERSES)]
            csv.writer(file).writerows([("text", "label"), *rows])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
