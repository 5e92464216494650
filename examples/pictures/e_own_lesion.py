"""
The host's own lesion, painted anew
===================================

``place="own"`` adds no lesion: it changes the one that is there, here its size, and heals what it leaves.
"""

import matplotlib.pyplot as plt
import torch

from synthaug import LesionBank, TumorInsertion
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")

donor, host = phantom_case(0), phantom_case(5)
bank = LesionBank.from_arrays([("donor", "donor", donor.image, donor.label, donor.spacing_mm)], "BRATS18", CHANNELS)
image, label = torch.from_numpy(host.image)[None], torch.from_numpy(host.label)[None, None]
z = int((label[0, 0] > 0).sum((0, 1)).argmax())

CHANGES = {
    "as it is": None,
    "scale=0.6": {"scale": 0.6},
    "darker": {"style": "host", "contrast": (0.3, 0.5), "scale": 1.0},
}
figure, axes = plt.subplots(1, len(CHANGES), figsize=(9, 3.2), layout="constrained")
for ax, (words, options) in zip(axes, CHANGES.items(), strict=True):
    shown = image
    if options is not None:
        insert = TumorInsertion(bank, "paste", channels=CHANNELS, place="own", prob=1.0, second=0.0, seed=0, **options)
        shown, _ = insert(image, label, spacing_mm=host.spacing_mm, groups=["host"])
        print(words, insert.report())
    ax.imshow(shown[0, 0, ..., z].T, cmap="gray", origin="lower")
    ax.set_title(words)
    ax.axis("off")
