"""Adapters of `TumorInsertion` to other frameworks; each module imports its own framework, this one imports none."""
