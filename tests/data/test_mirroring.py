"""Pseudo-healthy hosts: the side of the tumour is the mirror image of the other, the other is as it was."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.data import CaseError, find_cases, load_case, write_phantom_dataset
from synthaug.data.mirroring import find_mid_plane, left_right_axis, mirrored_host
from synthaug.data.nifti import LabelledVolume

SIZE = (44, 48, 40)


def head(tilt=0.0, shift=0.0, flipped=False, side=12.0) -> tuple[LabelledVolume, np.ndarray]:
    """A symmetric textured ellipsoid, whose mid-plane is tilted and shifted, and a tumour; and the head without it."""
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) for n in SIZE), indexing="ij")
    angle = np.deg2rad(tilt)
    across = (x - shift) * np.cos(angle) + y * np.sin(angle)
    along = -(x - shift) * np.sin(angle) + y * np.cos(angle)
    inside = (across / 18) ** 2 + (along / 20) ** 2 + (z / 16) ** 2 < 1
    texture = np.cos(across / 3) + np.sin(along / 4) + np.cos((z + along) / 5)
    image = np.where(inside, 100 + 10 * texture, 0).astype(np.float32)[None]
    lesion = (across - side) ** 2 + along**2 + z**2 < 5**2
    affine = np.diag([-1.0 if flipped else 1.0, 1, 1, 1])
    sick = np.where(lesion, 300, image).astype(np.float32)
    return LabelledVolume(sick, lesion.astype(np.int16), affine, (1.0, 1.0, 1.0)), image


@pytest.mark.parametrize(("tilt", "shift", "flipped"), [(0, 0, False), (4, 1.5, False), (-6, -2, True)])
def test_the_tumour_gives_way_to_the_other_side(tilt, shift, flipped):
    volume, healthy = head(tilt, shift, flipped)
    made = mirrored_host("head", volume)
    normal = np.array([np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt)), 0])
    assert abs(made.plane.normal @ normal) > np.cos(np.deg2rad(2.0))
    lesion, tissue = volume.label > 0, healthy[0] > 0
    assert np.abs(made.image - healthy)[0][lesion].mean() < 3 and made.image[0][lesion].max() < 150
    points = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1)
    away = made.plane.distance_mm(points) < -3.5
    assert np.array_equal(made.image[0][away & tissue], volume.image[0][away & tissue])
    assert np.array_equal((made.image[0] > 0)[away], tissue[away])
    assert made.removed_ml == pytest.approx(lesion.sum() / 1000, abs=1e-6) and made.beyond_ml == 0


def test_a_tumour_on_both_sides_is_refused_and_a_little_beyond_the_plane_is_filled():
    with pytest.raises(CaseError, match=r"head: its tumour lies on both sides of the mid-plane, 0\.\d and 0\.\d ml"):
        mirrored_host("head", head(side=1.0)[0], most_beyond_ml=0.1)
    volume, healthy = head(side=4.0)
    made = mirrored_host("head", volume, most_beyond_ml=0.1)
    assert 0 < made.beyond_ml < 0.1 and made.image.max() < 150
    with pytest.raises(CaseError, match="head: has no tumour"):
        mirrored_host("head", LabelledVolume(healthy, 0 * volume.label, volume.affine, volume.spacing_mm))


def test_the_axis_is_that_of_the_patient():
    assert left_right_axis(np.diag([-2.0, 1, 1, 1])) == 0
    assert left_right_axis(np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])) == 2
    volume, _ = head()
    turned = np.moveaxis(volume.image, 1, 3), np.moveaxis(volume.label > 0, 0, 2)
    plane = find_mid_plane(turned[0], turned[0][0] > 0, turned[1], np.ones(3), 2)
    assert abs(plane.normal[2]) > 0.99 and plane.offset_mm == pytest.approx((SIZE[0] - 1) / 2, abs=0.7)


def test_the_command_writes_hosts_that_can_be_read_and_says_what_it_refused(tmp_path):
    write_phantom_dataset(tmp_path / "cases", 3, seed=1, size=(40, 40, 40), tumour_free=1)
    done = CliRunner().invoke(app, ["hosts", "mirror", str(tmp_path / "cases"), "--out", str(tmp_path / "hosts")])
    assert done.exit_code == 0, done.output
    marks = json.loads((tmp_path / "hosts" / "pseudo_healthy.json").read_text())
    hosts = find_cases(tmp_path / "hosts")
    assert {case.name: case.group for case in hosts} == {name: c["patient"] for name, c in marks["cases"].items()}
    assert "Phantom_002_1" in marks["refused"] and len(hosts) + len(marks["refused"]) == 3
    originals = {case.name: case for case in find_cases(tmp_path / "cases")}
    for case in hosts:
        host, original = (load_case(c, tuple(c.images)) for c in (case, originals[case.name]))
        assert not host.label.any() and not np.array_equal(host.image, original.image)
        assert marks["cases"][case.name]["removed_ml"] > 0
    nothing = CliRunner().invoke(
        app, ["hosts", "mirror", str(tmp_path), "--out", str(tmp_path / "x"), "--layout", "msd"]
    )
    assert nothing.exit_code == 2 and not (tmp_path / "x").exists()
