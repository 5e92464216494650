"""Where false regions of made-up predictions lie."""

import numpy as np
import pytest

from synthaug.evaluation.components import components
from synthaug.frames import host_frame
from synthaug.training.artefacts import keep_components, read_components
from synthaug.trial.false_regions import CELLS, RegionMap


@pytest.fixture
def found():
    """A lesion that is found, one that is grazed, and two false regions, in a host of 40^3 voxels."""
    prediction, truth = np.zeros((2, 40, 40, 40), np.int16)
    truth[10:14, 10:14, 10:14], truth[30:34, 30:34, 30:34] = 4, 1
    prediction[12:16, 12:16, 12:16] = 2  # overlaps
    prediction[34:36, 30:34, 30:34] = 4  # lies beside
    prediction[4:6, 20:22, 3:5], prediction[30, 5, 20] = 1, 4
    prediction[31, 6, 21] = 2  # by a corner part of the one before
    return components(prediction, truth, host_frame(np.ones((40, 40, 40), bool)), (2, 2, 2))


def test_regions_that_touch_no_lesion_are_found_with_place_and_volume(found):
    assert [row["ml"] for row in found["false"]] == pytest.approx([8 * 0.008, 2 * 0.008])
    assert found["false"][0]["place"] == pytest.approx([5 / 40, 21 / 40, 4 / 40], abs=0.01)
    assert found["false"][1]["place"] == pytest.approx([31 / 40, 6 / 40, 21 / 40], abs=0.01)
    assert [row["ml"] for row in found["true"]] == pytest.approx([64 * 0.008] * 2)


def test_the_map_counts_them_per_case(found):
    cases = [found | {"case": "a"}, {"case": "b", "false": [], "true": []}]
    false = RegionMap.of_cases(cases, "false")
    assert (false.per_case, false.ml_per_case, false.lowest) == pytest.approx((1.0, 0.04, 0.5))
    grid = false.grid()
    assert grid.shape == (CELLS,) * 3 and grid.sum() == pytest.approx(1.0)
    assert grid[1, 6, 1] == grid[9, 1, 6] == 0.5
    assert RegionMap.of_cases(cases[1:], "false").lowest is None


def test_they_are_kept_in_place_of_the_validation_before(found, tmp_path):
    keep_components(tmp_path, "a/b", {"case": "a/b", "false": [], "true": []})
    keep_components(tmp_path, "a/b", {"case": "a/b", **found})
    assert read_components(tmp_path) == [{"case": "a/b", **found}]
