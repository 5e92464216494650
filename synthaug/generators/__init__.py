"""How inserted lesions look."""
