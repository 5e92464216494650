"""Pages of the fidelity kit: `fidelity.html`, the figures, and `reader.html`, a reader study in one file."""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from synthaug.evaluation.fidelity.distances import DISTANCES, mean_distance
from synthaug.evaluation.fidelity.pictures import MOST_CHANNELS, evidence_picture, reader_pictures
from synthaug.evaluation.fidelity.scene import Sample
from synthaug.figures.html import data_uri, render
from synthaug.files import replace_files
from synthaug.random import stream

if TYPE_CHECKING:
    from synthaug.evaluation.fidelity.kit import Kit

PAGE, READER, FIGURES = "fidelity.html", "reader.html", "fidelity.json"
KEY = 0x5A
"""Answers on the reader's page are not to be read in passing in its source."""
WORDS = {
    "lesion": "the lesion",
    "border": "its border",
    "patch": "the whole patch",
    "linear": "its border, by a linear classifier",
}


def write_pages(kit: "Kit", found: dict[str, Any]) -> list[Path]:
    """Write both pages and the figures."""
    out = kit.store.out
    return replace_files(
        {
            out / FIGURES: json.dumps(found, indent=1) + "\n",
            out / PAGE: _page(kit, found),
            out / READER: reader_page(kit),
        }
    )


def _page(kit: "Kit", found: dict[str, Any]) -> str:
    looks = {region: kit.looks(region) for region in kit.config.regions}
    return render(
        "fidelity.html",
        generator=kit.name,
        counts=found["lesions"],
        tiles_shown=_tiles(found),
        auc_rows=[
            [WORDS[name], f"{a['auc']:.3f} [{a['low']:.3f}, {a['high']:.3f}]", *(f"{x:.3f}" for x in a["seeds"])]
            for name, a in found["auc"].items()
        ],
        auc_head=["what it sees", "AUC", *(f"seed {n}" for n in range(kit.config.seeds))],
        pictures=[(WORDS[name], evidence_picture(shown, kit.profile.names)) for name, shown in looks.items() if shown],
        distance_head=["class", "channel", *(f"{what} (real)" for what in DISTANCES)],
        distance_rows=_distance_rows(found["distances"]),
        diversity_rows=_diversity_rows(found["diversity"]),
        dice_rows=_dice_rows(found["dice"]),
        settings=json.dumps(kit.config.model_dump(), indent=1),
    )


def _tiles(found: dict[str, Any]) -> list[tuple[str, str]]:
    tiles = [
        (f"{a['auc']:.2f}", f"AUC on {WORDS[name]}, {a['low']:.2f} to {a['high']:.2f}")
        for name, a in found["auc"].items()
    ]
    made, floor = (mean_distance(found["distances"], side) for side in ("made", "floor"))
    tiles.append((f"{made:.2f}", f"mean distance; real from real {floor:.2f}"))
    if found["diversity"] and found["diversity"]["seeds"]:
        tiles.append((f"{np.mean(found['diversity']['seeds']):.2f}", "two seeds, as a share of two patients"))
    return tiles


def _distance_rows(rows: list[dict]) -> list[list[str]]:
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        table.setdefault((row["class"], row["channel"]), {})[row["what"]] = f"{row['made']:.2f} ({row['floor']:.2f})"
    return [[*key, *(cells.get(what, "-") for what in DISTANCES)] for key, cells in table.items()]


def _diversity_rows(found: dict[str, Any] | None) -> list[list[str]]:
    if not found:
        return []
    seeds = found["seeds"] or [None] * len(found["channels"])
    return [
        [name, "-" if one is None else f"{one:.2f}", f"{two:.2f}"]
        for name, one, two in zip(found["channels"], seeds, found["patients"], strict=True)
    ]


def _dice_rows(found: dict[str, dict[str, float] | None]) -> list[list[str]]:
    made, real = found["inserted"] or {}, found["real"] or {}
    return [
        [name, *(f"{side[name]:.3f}" if name in side else "-" for side in (made, real))]
        for name in dict.fromkeys([*made, *real])
    ]


def reader_page(kit: "Kit") -> str:
    """Make the reader's page: real and inserted lesions in an order drawn by the seed, answers kept from sight."""
    real, made = kit.store.samples("real"), kit.store.samples("made")
    rng = stream(kit.config.seed, 77)
    items = [(sample, 0) for sample in _some(real, kit.config.read, rng)]
    items += [(sample, 1) for sample in _some(made, kit.config.read, rng)]
    shown = [items[i] for i in rng.permutation(len(items))]
    pictures = [[data_uri(picture) for picture in reader_pictures(sample)] for sample, _ in shown]
    text = json.dumps([truth for _, truth in shown]).encode()
    coded = base64.b64encode(bytes(byte ^ KEY for byte in text)).decode()
    return render(
        "reader.html",
        generator=kit.name,
        pictures=Markup(json.dumps(pictures)),  # addresses of pictures, no text of users
        coded=coded,
        key=KEY,
        channels=", ".join(kit.profile.names[:MOST_CHANNELS]),
        count=len(shown),
    )


def _some(samples: list[Sample], count: int, rng: np.random.Generator) -> list[Sample]:
    """Draw samples of as many patients as there are."""
    order = [samples[i] for i in rng.permutation(len(samples))]
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int, Sample]] = []
    for sample in order:
        group = str(sample.facts["donor"])
        seen[group] = seen.get(group, 0) + 1
        ranked.append((seen[group], len(ranked), sample))
    return [sample for *_, sample in sorted(ranked, key=lambda item: item[:2])[:count]]
