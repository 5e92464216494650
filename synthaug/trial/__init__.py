"""A trial: the same training with and without insertion on rotating patients, its differences, and what follows."""
