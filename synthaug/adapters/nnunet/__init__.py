"""nnU-Net v2: the trainer `nnUNetTrainerSynthAug`, its settings, and the lesion bank of a fold's training cases.

Nothing here imports nnU-Net until it is used, so that ``synthaug nnunet-path`` works without it.
"""

from pathlib import Path

__all__ = ["trainer_folder"]


def trainer_folder() -> Path:
    """Return the folder for ``nnUNet_extTrainer``, in which nnU-Net finds `nnUNetTrainerSynthAug` by its name."""
    return Path(__file__).parent / "trainers"
