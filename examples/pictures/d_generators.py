"""
How lesions look: generators
============================

The same mask, three ways: pasted with the donor's intensities, painted from statistics, painted by a trained network.
"""

import matplotlib.pyplot as plt
import torch

from synthaug import LesionBank, TumorInsertion
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")

donor, host = phantom_case(0), phantom_case(1, tumour=False)
bank = LesionBank.from_arrays([("donor", "donor", donor.image, donor.label, donor.spacing_mm)], "BRATS18", CHANNELS)
image, label = torch.from_numpy(host.image)[None], torch.from_numpy(host.label)[None, None]

NAMES = ("paste", "procedural", "brats-gan")
figure, axes = plt.subplots(2, len(NAMES), figsize=(9, 6), layout="constrained")
for column, name in zip(axes.T, NAMES, strict=True):
    insert = TumorInsertion(bank, name, channels=CHANNELS, prob=1.0, second=0.0, seed=3, scale=0.9)
    new_image, new_label = insert(image, label, spacing_mm=host.spacing_mm, groups=["host"])
    z = int((new_label[0, 0] > 0).sum((0, 1)).argmax())
    for ax, channel in zip(column, ("flair", "t1ce"), strict=True):
        ax.imshow(new_image[0, CHANNELS.index(channel), ..., z].T, cmap="gray", origin="lower")
        ax.set_title(f"{name}, {channel}")
        ax.axis("off")
