"""Mass effect and smoothed outlines: what moves, how far, what stays bit for bit, and that a row repeats it."""

import pytest
import torch

from synthaug import InsertionPlan, LesionShapes, TumorInsertion
from synthaug.insertion.push import REACH, displacement, push_support, pushed
from synthaug.insertion.render import smoothed_outline

SIDE = 48
SPACING = (1.0, 1.0, 1.0)


def ball(radius: float, center=(24, 24, 24), side: int = SIDE) -> torch.Tensor:
    axes = [torch.arange(side) - c for c in center]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return (x**2 + y**2 + z**2).sqrt() < radius


def open_space() -> torch.Tensor:
    fixed = torch.ones(SIDE, SIDE, SIDE, dtype=torch.bool)
    fixed[2:-2, 2:-2, 2:-2] = False
    return fixed


def test_tissue_moves_outwards_by_what_was_asked_and_less_further_off():
    lesion = ball(6)
    u = displacement(lesion, open_space(), 2.0, SPACING)
    along = u[0, :, 24, 24]
    assert 1.2 < along[31] <= 2.0 and along[31] > along[34] > along[37] >= 0
    assert torch.equal(along[24 + int(6 + REACH * 2) :], torch.zeros_like(along[24 + int(6 + REACH * 2) :]))
    assert along[17] == pytest.approx(-float(along[31]), abs=1e-3), "to both sides"
    # a shell of the image comes to lie further out
    shell = torch.zeros(1, SIDE, SIDE, SIDE)
    shell[0, 32] = 1
    after = pushed(shell, lesion, open_space(), 2.0, SPACING)[0, :, 24, 24]
    place = float((after * torch.arange(SIDE)).sum() / after.sum())
    assert 32.7 < place < 34


@pytest.mark.parametrize("shape", ["ball", "two"])
def test_the_push_can_be_inverted(shape):
    lesion = ball(7) if shape == "ball" else ball(5, (16, 24, 24)) | ball(5, (30, 24, 26))
    u = displacement(lesion, open_space(), 3.0, SPACING)
    slopes = torch.stack([torch.stack(torch.gradient(component)) for component in u])
    jacobian = torch.eye(3)[:, :, None, None, None] - slopes
    assert torch.linalg.det(jacobian.permute(2, 3, 4, 0, 1)).min() > 0
    assert torch.linalg.matrix_norm(slopes.permute(2, 3, 4, 0, 1), 2).max() < 1, "x - u(x) is one to one"


def test_what_is_fixed_and_what_is_beyond_the_support_keep_their_bits():
    lesion, fixed = ball(6), open_space()
    fixed[34:] = True
    image = torch.randn(2, SIDE, SIDE, SIDE)
    after = pushed(image, lesion, fixed, 3.0, SPACING)
    support = push_support(lesion, fixed, 3.0, SPACING)
    assert torch.equal(after[:, ~support], image[:, ~support])
    assert not support[34:].any() and (after != image)[:, support].float().mean() > 0.5
    assert torch.equal(pushed(image, torch.zeros_like(lesion), fixed, 3.0, SPACING), image)


def test_the_push_is_in_mm():
    lesion = torch.zeros(24, 48, 48, dtype=torch.bool)
    lesion[9:15, 18:30, 18:30] = True
    fixed = torch.ones_like(lesion)
    fixed[1:-1, 2:-2, 2:-2] = False
    u = displacement(lesion, fixed, 3.0, (2.0, 1.0, 1.0))
    assert float(u[0, 15, 24, 24]) == pytest.approx(float(u[1, 12, 31, 24]), rel=0.35)


def insertion(**options) -> TumorInsertion:
    shapes = LesionShapes(diameter_mm=(12, 12))
    return TumorInsertion(shapes, "procedural", prob=1, second=0, seed=3, avoid_fluid=False, **options)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand(1, 4, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) + 1
    image[:, :, :4] = 0
    label = torch.zeros(1, 1, SIDE, SIDE, SIDE, dtype=torch.int16)
    label[0, 0, 40:44, 40:44, 40:44] = 2
    return image, label


def test_an_insertion_pushes_within_its_declared_support_and_repeats_from_rows():
    image, label = batch()
    pushing = insertion(mass_effect_mm=2.0)
    after, new, plan = pushing.recorded(image, label, SPACING)
    plain, plain_label = insertion()(image, label, SPACING)
    assert torch.equal(new, plain_label), "the lesion and its place are the same"
    lesion = (new != label)[0, 0]
    fixed = ~((image[0, 0] > 0) & (label[0, 0] == 0))
    support = push_support(lesion, fixed & ~lesion, 2.0, SPACING)
    changed = (after != image)[0].any(0)
    assert not changed[~support].any() and changed[support & ~lesion].float().mean() > 0.4
    assert not (plain != image)[0].any(0)[~lesion].any()
    rows = plan.to_rows()
    assert rows[0]["mass_effect_mm"] == 2.0
    repeated = insertion().apply(image, label, InsertionPlan.from_rows(rows))
    assert torch.equal(repeated[0], after) and torch.equal(repeated[1], new)


def test_rows_from_before_push_and_smooth_nothing():
    image, label = batch()
    engine = insertion()
    after, _, plan = engine.recorded(image, label, SPACING)
    rows = [{k: v for k, v in row.items() if k not in ("mass_effect_mm", "smooth_mm")} for row in plan.to_rows()]
    old = InsertionPlan.from_rows([row | {"version": 4} for row in rows])
    assert torch.equal(engine.apply(image, label, old)[0], after)
    with pytest.raises(ValueError, match="lacks smooth_mm, mass_effect_mm"):
        InsertionPlan.from_rows(rows)


def test_outlines_are_smoothed_at_their_volume_and_classes_stay():
    rng = torch.Generator().manual_seed(0)
    core, whole = ball(6), ball(12)
    ragged = whole & (torch.rand(whole.shape, generator=rng) < 0.7) | core
    mask = torch.where(core, 3, torch.where(ragged, 2, 0)).to(torch.uint8)
    smooth = smoothed_outline(mask, 3, 1.5, SPACING)

    def surface(x: torch.Tensor) -> int:
        return sum(int((x > 0).int().diff(dim=axis).abs().sum()) for axis in range(3))

    assert abs(int((smooth > 0).sum()) - int((mask > 0).sum())) < 20
    assert surface(smooth) < 0.6 * surface(mask)
    both = (smooth > 0) & (mask > 0)
    assert torch.equal(smooth[both], mask[both])
    assert not smoothed_outline(torch.zeros_like(mask), 3, 1.5, SPACING).any()


def test_a_smoothed_insertion_says_so_and_its_label_is_what_was_written():
    image, label = batch()
    after, new, plan = insertion(smooth_mm=1.5).recorded(image, label, SPACING)
    row = plan.to_rows()[0]
    assert row["smooth_mm"] == 1.5 and sum(row["voxels"].values()) == int((new != label).sum())
    assert not (after != image)[0].any(0)[(new == label)[0, 0]].any()


def test_the_hosts_own_lesions_are_neither_pushed_nor_smoothed():
    for option in ("mass_effect_mm", "smooth_mm"):
        with pytest.raises(ValueError, match="mass_effect_mm, smooth_mm and fringe_mm are for others"):
            insertion(place="own", **{option: 1.0})
