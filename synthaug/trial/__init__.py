"""Trials: the same training with and without insertion on a user's data, paired by patient and seed."""
