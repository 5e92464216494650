"""Layouts: names in each, and a new one that is a class and an entry of the registry."""

import json

import pytest
from cohort_tools import cohort_config, contents, plain_reports
from pydantic import ValidationError

from synthaug import LesionBank
from synthaug.classes import BRATS18
from synthaug.cohort import CohortConfig, generate
from synthaug.cohort.encoding import json_bytes
from synthaug.cohort.layouts import LAYOUTS, Layout, make_layout
from synthaug.config import ConfigError

EXPECTED = {
    "nnunet": ("synth_000007", "real-1", ["imagesTr/c_0000.nii.gz", "imagesTr/c_0001.nii.gz"], "labelsTr/c.nii.gz"),
    "msd": ("synth_000007", "real-1", ["imagesTr/c.nii.gz"], "labelsTr/c.nii.gz"),
    "bids": (
        "sub-synth000007",
        "sub-real1",
        ["c/anat/c_FLAIR.nii.gz", "c/anat/c_ce-GADOLINIUM_T1w.nii.gz"],
        "derivatives/tumours/c/anat/c_desc-tumour_dseg.nii.gz",
    ),
    "brats": ("synth_000007", "real-1", ["c/c_flair.nii.gz", "c/c_t1ce.nii.gz"], "c/c_seg.nii.gz"),
    "webdataset": ("synth_000007", "real-1", ["c.flair.nii.gz", "c.t1ce.nii.gz"], "c.seg.nii.gz"),
    "zarr": ("synth_000007", "real-1", ["c.ome.zarr"], "c.ome.zarr/labels/tumour"),
}


class FlatLayout(Layout):
    """Everything in one folder."""

    def image_paths(self, name):
        return [f"{name}-{channel}.nii.gz" for channel in self.channels]

    def label_path(self, name):
        return f"{name}-truth.nii.gz"

    def description(self, provenance, written):
        return {"flat.json": json_bytes({"cases": [record["case"] for record in written]})}


def config(layout, **changes):
    return CohortConfig(
        **{"cases": ".", "layout": layout, "count": 1, "classes": "BRATS18", "channels": ("flair", "t1ce"), **changes}
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_names_of_cases_and_files(name):
    synthetic, real, images, label = EXPECTED[name]
    layout = make_layout(config(name))
    assert (layout.synthetic_name(7), layout.real_name("real-1")) == (synthetic, real)
    assert (layout.image_paths("c"), layout.label_path("c")) == (images, label)


def test_every_layout_is_expected_above():
    assert set(LAYOUTS) == set(EXPECTED)


def test_brats_names_files_by_the_year_of_the_vocabulary():
    layout = make_layout(config("brats", classes="BRATS23"))
    assert (
        layout.image_paths("c") == ["c/c-t2f.nii.gz", "c/c-t1c.nii.gz"] and layout.label_path("c") == "c/c-seg.nii.gz"
    )


def test_nnunet_numbers_labels_and_the_others_keep_them():
    assert make_layout(config("nnunet")).label_values == {"NCR": 1, "ED": 2, "ET": 3}
    assert all(
        make_layout(config(name)).label_values == {"NCR": 1, "ED": 2, "ET": 4} for name in ("msd", "bids", "brats")
    )


def test_an_unknown_layout_and_a_channel_without_a_name_are_refused():
    with pytest.raises(ValidationError, match=r"expected nnunet, msd, bids, brats, webdataset, zarr, got 'flat'"):
        config("flat")
    with pytest.raises(ConfigError, match="BIDS has no anatomical suffix for ct"):
        make_layout(config("bids", channels=("ct",)))


def test_a_new_layout_is_a_class_and_an_entry(phantom_folder, tmp_path, monkeypatch, request):
    monkeypatch.setitem(LAYOUTS, "flat", FlatLayout)
    plain_reports(request, monkeypatch)
    bank = tmp_path / "bank.safetensors"
    LesionBank.from_folder(phantom_folder, BRATS18).save(bank)
    assert generate(cohort_config(phantom_folder, bank, layout="flat", count=1), tmp_path / "c").complete
    files = {path for path in contents(tmp_path / "c") if not path.startswith(".synthaug")}
    images = {f"synth_000000-{channel}.nii.gz" for channel in ("flair", "t1", "t1ce", "t2", "truth")}
    assert files == images | {"flat.json", "manifest.jsonl", "cases.jsonl", "cohort.json"}
    assert json.loads((tmp_path / "c" / "flat.json").read_text()) == {"cases": ["synth_000000"]}
