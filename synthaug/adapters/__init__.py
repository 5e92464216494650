"""`TumorInsertion` in the idiom of other frameworks; each module imports its own framework, this one imports none."""
