"""Found by nnU-Net where ``nnUNet_extTrainer`` names this folder (``synthaug nnunet-path`` prints it)."""

from synthaug.adapters.nnunet.trainer import nnUNetTrainerSynthAug

__all__ = ["nnUNetTrainerSynthAug"]
