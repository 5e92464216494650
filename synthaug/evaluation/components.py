"""Predicted components that touch no lesion, and the lesions themselves: places in host coordinates, and volumes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthaug.frames import place


def components(
    prediction: np.ndarray, truth: np.ndarray, frame: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, list[dict[str, Any]]]:
    """List the false components of a prediction and the true lesions, all classes together.

    Args:
        prediction: (X, Y, Z), non-zero where a lesion is predicted.
        truth: (X, Y, Z), non-zero in lesions.
        frame: (3, 4), voxel indices to host coordinates (`synthaug.frames`).
        spacing_mm: voxel size.

    Returns:
        ``"false"``: components (26 neighbours) of the prediction that neither overlap a lesion nor lie beside one,
        ``"true"``: components of the truth; each with ``place``, its centre, and ``ml``.

    Example:
        >>> prediction, truth = np.zeros((2, 10, 10, 10), int)
        >>> prediction[1:3, 1:3, 1:3] = prediction[7, 7, 7] = truth[7:9, 7:9, 7:9] = 1
        >>> frame = np.concatenate([np.eye(3) / 10, np.full((3, 1), 0.05)], axis=1)
        >>> components(prediction, truth, frame, (1, 1, 1))["false"]
        [{'place': [0.2, 0.2, 0.2], 'ml': 0.008}]
    """
    from scipy import ndimage

    around = np.ones((3, 3, 3))
    beside = ndimage.binary_dilation(truth != 0, around)
    ml = float(np.prod(spacing_mm)) / 1000
    found: dict[str, list[dict[str, Any]]] = {}
    for which, mask in (("false", prediction != 0), ("true", truth != 0)):
        numbered, count = ndimage.label(mask, around)
        touching = {*np.unique(numbered[beside]).tolist()} if which == "false" else {0}
        rows = found[which] = []
        for number, box in enumerate(ndimage.find_objects(numbered, count), start=1):
            if number in touching:
                continue
            voxels = np.argwhere(numbered[box] == number)
            centre = place(frame, voxels.mean(0) + [side.start for side in box])
            rows.append({"place": [round(float(c), 4) for c in centre], "ml": round(len(voxels) * ml, 4)})
    return found
