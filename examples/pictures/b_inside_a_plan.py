"""
What is inside a plan
=====================

To plan is to decide, to apply is to do. A plan is a row of plain JSON for each insertion: the record, and the way to
repeat it.
"""

import json

import torch

from synthaug import InsertionPlan, LesionShapes, TumorInsertion
from synthaug.data import phantom_case

host = phantom_case(1, (64, 64, 64), tumour=False)
image, label = torch.from_numpy(host.image)[None], torch.from_numpy(host.label)[None, None]
shapes = LesionShapes(diameter_mm=(12, 18))
insert = TumorInsertion(shapes, "procedural", prob=1.0, second=0.0, seed=0)

plan = insert.plan(image, label, spacing_mm=host.spacing_mm)
rows = plan.to_rows()
print(json.dumps(rows[0], indent=1)[:1400])

# %%
# The rows, kept in a file, give the same bits in another process.

first, _ = insert.apply(image, label, plan)
other = TumorInsertion(shapes, "procedural", prob=1.0, second=0.0, seed=7)
again, _ = other.apply(image, label, InsertionPlan.from_rows(rows))
print("the same bits:", torch.equal(first, again))

# %%
# Whatever was asked has an outcome, and the report counts them.

crowded = TumorInsertion(LesionShapes(diameter_mm=(60, 62)), "procedural", prob=1.0, second=0.0, seed=0)
crowded(image, label, spacing_mm=host.spacing_mm)
print(crowded.report())
