"""What is inserted: lesion masks, their classes and their size."""
