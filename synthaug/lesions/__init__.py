"""Sources of lesion masks, and the draw of their classes and sizes."""
