"""Made-up CT of limbs on a table, with a tumour in the muscle, and data sets of them."""

import json

import nibabel as nib
import numpy as np

SIZE, SPACING = (40, 36, 20), (2.0, 2.0, 4.0)
AFFINE = np.diag([*SPACING, 1.0])


def limb(seed: int, air: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT of a limb on a table: HU, tumour mask, and muscle (the organ of the tests)."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    away = np.hypot((x - 20) / 15, (y - 16) / 13)
    image = np.full(SIZE, -1000.0)
    image[away < 1] = -95  # fat
    muscle = away < 0.75
    image[muscle] = 55
    image[np.hypot(x - 10, y - 16) < 2] = 700  # bone, far from the tumours
    image[:, 33:35] = 120  # the table
    z = rng.integers(7, 13)
    at = (20 + int(rng.integers(-3, 4)), 16 + int(rng.choice([-7, 7])), z)
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1)
    tumour = (np.linalg.norm((grid - at) * SPACING, axis=-1) < 9) & muscle
    image[tumour] = 35
    image = image + rng.normal(0, 8, SIZE)
    image[image < -990] = -1000
    if not air:
        image, tumour, muscle = (m[6:34, 4:28] for m in (image, tumour, muscle))
    return image.astype(np.int16), tumour, muscle


def write_nnunet(folder, label_of, labels: dict | None, count: int = 4, air: bool = True):
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image, tumour, muscle = limb(i, air)
        nib.save(nib.Nifti1Image(image, AFFINE), folder / "imagesTr" / f"limb_{i:03d}_0000.nii.gz")
        label = label_of(tumour, muscle).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / f"limb_{i:03d}.nii.gz")
    meta = {"channel_names": {"0": "CT"}, "numTraining": count, "file_ending": ".nii.gz"}
    meta["labels"] = labels or {"background": 0, "tumour": 1}
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder
