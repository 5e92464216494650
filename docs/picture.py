"""Make the README's picture, docs/images/insertion.png, from the demo's phantoms: python docs/picture.py."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from synthaug.demo.brains import demo_brains
from synthaug.demo.examples import make_examples
from synthaug.demo.loop import CHANNELS
from synthaug.demo.pictures import panel_arrays
from synthaug.figures.slices import png
from synthaug.lesions.bank import LesionBank

SHOWN = (0,)
"""Examples of the demo that are shown, a row for each."""
WIDTH = 1000
COLUMNS = {"FLAIR, before": 0, "FLAIR, after": 1, "T1ce, after": 3, "its new label": 4}
GAP, HEAD = 6, 22


def main(seed: int = 0) -> None:
    """Draw the examples' axial slices side by side, with a line of words above."""
    donors, hosts = demo_brains(seed, simple=False)
    bank = LesionBank.from_arrays([brain.sample() for brain in donors], "BRATS18", CHANNELS)
    free = [host for host in hosts if not host.has_tumour]
    with tempfile.TemporaryDirectory() as folder:
        examples = make_examples(bank, free, Path(folder) / "rows.jsonl", seed)
    rows = []
    for example in (examples[i] for i in SHOWN):
        pictures, _ = panel_arrays(example.before, example.after, example.label_before, example.label_after)
        rows.append([_colour(pictures[i]) for i in COLUMNS.values()])
    height, width = (max(p.shape[axis] for row in rows for p in row) for axis in (0, 1))
    size = (len(COLUMNS) * (width + GAP) - GAP, HEAD + len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "black")
    draw = ImageDraw.Draw(sheet)
    for column, words in enumerate(COLUMNS):
        draw.text((column * (width + GAP) + 4, 4), words, fill="white", font_size=14)
        for line, row in enumerate(rows):
            sheet.paste(Image.fromarray(row[column]), (column * (width + GAP), HEAD + line * (height + GAP)))
    file = Path(__file__).parent / "images" / "insertion.png"
    sheet = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
    file.write_bytes(png(np.asarray(sheet)))
    print(file, sheet.size, f"{file.stat().st_size / 1000:.0f} kB")


def _colour(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.stack([picture] * 3, -1)


if __name__ == "__main__":
    main()
