"""
Sizes and swapped classes
=========================

One donor four times: at its own size, at half of it, with oedema become enhancing tumour, and as a diameter in mm.
"""

import matplotlib.pyplot as plt
import torch

from synthaug import LesionBank, TumorInsertion
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")

donor, host = phantom_case(0), phantom_case(1, tumour=False)
bank = LesionBank.from_arrays([("donor", "donor", donor.image, donor.label, donor.spacing_mm)], "BRATS18", CHANNELS)
image, label = torch.from_numpy(host.image)[None], torch.from_numpy(host.label)[None, None]

OPTIONS = {
    "scale=1": {"scale": 1.0},
    "scale=0.5": {"scale": 0.5},
    "ED to ET, ET to NCR": {"scale": 0.8, "swaps": [("ED", "ET", 1.0), ("ET", "NCR", 1.0)]},
    "diameter_mm=14": {"diameter_mm": 14.0},
}

figure, axes = plt.subplots(2, len(OPTIONS), figsize=(11, 5.6), layout="constrained")
for column, (words, options) in zip(axes.T, OPTIONS.items(), strict=True):
    insert = TumorInsertion(bank, "paste", channels=CHANNELS, prob=1.0, second=0.0, seed=3, **options)
    new_image, new_label = insert(image, label, spacing_mm=host.spacing_mm, groups=["host"])
    z = int((new_label[0, 0] > 0).sum((0, 1)).argmax())
    column[0].imshow(new_image[0, 2, ..., z].T, cmap="gray", origin="lower")
    column[1].imshow(new_label[0, 0, ..., z].T, cmap="magma", origin="lower", vmin=0, vmax=4)
    column[0].set_title(words)
    for ax in column:
        ax.axis("off")
    print(words, insert.report().voxels)
