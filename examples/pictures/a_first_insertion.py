"""
A first insertion
=================

A lesion of one phantom patient goes into another: a bank of lesions, an insertion, a batch of one.
"""

import matplotlib.pyplot as plt
import torch

from synthaug import LesionBank, TumorInsertion
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")

donor, host = phantom_case(0), phantom_case(1, tumour=False)
bank = LesionBank.from_arrays([("donor", "donor", donor.image, donor.label, donor.spacing_mm)], "BRATS18", CHANNELS)
insert = TumorInsertion(bank, "paste", channels=CHANNELS, prob=1.0, second=0.0, seed=0)

image, label = torch.from_numpy(host.image)[None], torch.from_numpy(host.label)[None, None]
new_image, new_label = insert(image, label, spacing_mm=host.spacing_mm, groups=["host"])
print(insert.report())

# %%
# The same slice before and after, and the label. Outside the lesion every voxel is the host's own, bit for bit.

z = int((new_label[0, 0] > 0).sum((0, 1)).argmax())
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, picture, title in zip(
    axes,
    (image[0, 0, ..., z], new_image[0, 0, ..., z], new_label[0, 0, ..., z]),
    ("before", "after", "label"),
    strict=True,
):
    ax.imshow(picture.T, cmap="gray" if title != "label" else "magma", origin="lower")
    ax.set_title(title)
    ax.axis("off")

outside = new_label[0, 0] == label[0, 0]
print("voxels that changed outside the label:", int((new_image != image)[0, :, outside].sum()))
