"""How much of the host's structure shows through each class of real lesions, told by the other side of the brain.

    python benchmarks/show_through.py --data DATA [--channels flair t1 t1ce t2]

Of each labelled case, every channel is put into z-scores of healthy tissue and smoothed by one
voxel. Under a class, the slope of the lesion's intensities over those of the mirrored place says how much of what is
there still shows; the same slope in healthy tissue within 15 voxels of lesions says what the mirror is worth. Their
ratio is what the option `show_through` of an insertion means. Places 4 voxels and nearer to the brain's edge and those
whose mirror image is a lesion are left out.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, map_coordinates
from torch import from_numpy

from synthaug import get_classes
from synthaug.data import find_cases, load_case
from synthaug.data.cases import LabelledVolume
from synthaug.data.mirroring import MidPlane, find_mid_plane, left_right_axis
from synthaug.host import host_tissue

LEAST = 500
"""Voxels of a class below which a case says nothing of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", default="BRATS18")
    parser.add_argument("--channels", nargs="+", default=["flair", "t1", "t1ce", "t2"])
    args = parser.parse_args()
    classes = get_classes(args.classes)
    found: dict[str, list[np.ndarray]] = {}
    for case in find_cases(args.data):
        volume = load_case(case, args.channels)
        tissue = host_tissue(from_numpy(volume.image)).numpy()
        axis = left_right_axis(volume.affine)
        plane = find_mid_plane(volume.image, tissue, volume.label > 0, np.array(volume.spacing_mm), axis)
        for name, slopes in slopes_of(volume, tissue, plane, classes.values).items():
            found.setdefault(name, []).append(slopes)
            print(f"{case.name:24s} {name:8s} {' '.join(f'{s:6.2f}' for s in slopes)}", flush=True)
    mirror = np.median(found.pop("healthy"), axis=0)
    print(f"{'class':8s} cases  {'  '.join(args.channels)}: median slope, and its ratio to healthy tissue's")
    for name, rows in found.items():
        slope = np.median(rows, axis=0)
        words = [f"{s:.2f} ({s / m:.2f})" for s, m in zip(slope, mirror, strict=True)]
        print(f"{name:8s} {len(rows):5d}  {'  '.join(words)}")


def slopes_of(volume: LabelledVolume, tissue: np.ndarray, plane: MidPlane, values: dict[str, int]) -> dict:
    """The slope of each channel over its mirror image, (C,), by class and in healthy tissue."""
    lesion, spacing = volume.label > 0, np.array(volume.spacing_mm)
    points = np.stack(np.meshgrid(*map(np.arange, tissue.shape), indexing="ij"), -1) * spacing
    mirrored = np.moveaxis(plane.reflected(points) / spacing, -1, 0)
    free = tissue & ~binary_dilation(lesion, iterations=3)
    other = {
        name: map_coordinates(mask.astype(np.float32), mirrored, order=0) > 0
        for name, mask in (("tissue", tissue), ("lesion", binary_dilation(lesion, iterations=2)))
    }
    sound = binary_erosion(tissue, iterations=4) & other["tissue"] & ~other["lesion"]
    near = sound & free & (np.abs(plane.distance_mm(points)) > 8) & binary_dilation(lesion, iterations=15)
    masks = {name: sound & (volume.label == value) for name, value in values.items()} | {"healthy": near}
    slopes: dict[str, list[float]] = {}
    for channel in volume.image:
        z = np.where(tissue, (channel - channel[free].mean()) / channel[free].std(), 0)
        z = gaussian_filter(z, 1.0)
        across = map_coordinates(z, mirrored, order=1).clip(-2.5, 2.5)
        for name, mask in masks.items():
            if np.count_nonzero(mask) > LEAST:
                x, y = across[mask] - across[mask].mean(), z[mask] - z[mask].mean()
                slopes.setdefault(name, []).append(float((x * y).mean() / (x * x).mean()))
    return {name: np.array(row) for name, row in slopes.items()}


if __name__ == "__main__":
    main()
