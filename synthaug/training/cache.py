"""A cache of training volumes on disk, so that reading, z-scores and resampling are done once for many runs."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthaug.classes import Classes
from synthaug.data.cases import Case
from synthaug.data.stored import size_and_time
from synthaug.files import new_folder
from synthaug.host.space import Space
from synthaug.training.patches import CachedVolume, cache_case

VERSION = 2


def cached_on_disk(
    case: Case,
    channels: Sequence[str],
    classes: Classes,
    dtype: str,
    spacing_mm: Sequence[float] | None,
    folder: Path,
    tumour_free: bool = False,
    space: Space | None = None,
) -> CachedVolume:
    """Read a case as `cache_case` does, or map its image and label from the cache where it is there already.

    What is kept depends on the case's files (names, sizes, times) and on all arguments: another one is made where any
    of them changed. Several processes may ask at once.

    Args:
        case: case with a label.
        channels: channel names in the order wanted.
        classes: vocabulary of the label.
        dtype: ``"float32"`` or ``"float16"``, of the image.
        spacing_mm: voxel size to resample to, or None.
        folder: the cache, made where it is missing.
        tumour_free: whether the case has no lesion, as for `cache_case`.
        space: host rule and units, for `cache_case`.

    Raises:
        CaseError: as for `cache_case`.
    """
    place = folder / f"{case.name}_{_key(case, channels, classes, dtype, spacing_mm, space or Space())}"
    if not place.is_dir():
        _write(cache_case(case, channels, classes, dtype, spacing_mm, tumour_free, space), place)
    rest = json.loads((place / "volume.json").read_text(encoding="utf-8"))
    return CachedVolume(
        rest["name"],
        rest["group"],
        np.load(place / "image.npy", mmap_mode="r"),
        np.load(place / "label.npy", mmap_mode="r"),
        tuple(rest["spacing_mm"]),
        np.array(rest["host_mean"], np.float32),
        np.array(rest["host_std"], np.float32),
        np.array(rest["frame"]),
        np.load(place / "host.npy", mmap_mode="r") if (place / "host.npy").is_file() else None,
        None if rest.get("outside") is None else np.array(rest["outside"], np.float32),
    )


def _key(case: Case, channels, classes: Classes, dtype: str, spacing_mm, space: Space) -> str:
    paths = [*(case.images[c] for c in channels if c in case.images), case.label]
    stats = [(str(p), *about) for p in paths if p is not None and (about := size_and_time(p)) is not None]
    spacing = None if spacing_mm is None else list(spacing_mm)
    recipe = [VERSION, case.name, case.group, list(channels), dict(classes.values), dtype, spacing, stats]
    recipe += [] if space == Space() else [space.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def _write(volume: CachedVolume, place: Path) -> None:
    rest = {
        "name": volume.name,
        "group": volume.group,
        "spacing_mm": volume.spacing_mm,
        "host_mean": volume.host_mean.tolist(),
        "host_std": volume.host_std.tolist(),
        "frame": volume.frame.tolist(),
        "outside": None if volume.outside is None else volume.outside.tolist(),
    }
    with new_folder(place) as folder:
        np.save(folder / "image.npy", volume.image)
        np.save(folder / "label.npy", volume.label)
        if volume.host is not None:
            np.save(folder / "host.npy", volume.host)
        (folder / "volume.json").write_text(json.dumps(rest), encoding="utf-8")
