"""What the fork server of processes.py imports: the trainers, so that functions of theirs are found by the forks."""

from synthaug.training.launch import load_trainer

for name in ("diffusion", "gan", "segmentation"):
    load_trainer(name)
