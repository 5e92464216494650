"""`TumorInsertion` and the way of a batch: checked, drawn, placed, written, counted."""
