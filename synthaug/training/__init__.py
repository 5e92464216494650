"""Training: runs on disk, patches and crops, losses and pictures that the trainers share."""
