"""`TumorInsertion` and the stages through which it takes a batch: check, draw, place, write, count."""
