"""Fixtures of the tests on nnU-Net: its folders, its environment, our settings."""

from pathlib import Path

import pytest
from nnunet_data import CT, KINDS, MR, plan_and_preprocess, split, write_datasets, write_settings


@pytest.fixture(scope="session")
def nnunet_folders(tmp_path_factory) -> Path:
    """nnU-Net's three folders, two preprocessed datasets in them."""
    home = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            (home / kind).mkdir()
            patch.setenv(f"nnUNet_{kind}", str(home / kind))
        patch.setenv("nnUNet_n_proc_DA", "1")
        write_datasets(home / "raw")
        plan_and_preprocess(501, 502)
    for name in (MR, CT):
        split(home / "preprocessed" / name)
    return home


@pytest.fixture
def nnunet(nnunet_folders, monkeypatch) -> Path:
    """nnU-Net's environment, and none of ours."""
    for kind in KINDS:
        monkeypatch.setenv(f"nnUNet_{kind}", str(nnunet_folders / kind))
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.delenv("SYNTHAUG_CONFIG", raising=False)
    return nnunet_folders


@pytest.fixture
def configured(nnunet, tmp_path, monkeypatch):
    """Write settings, name them in the environment and cut the fold's bank with them."""
    from synthaug.adapters.nnunet.bank import Preprocessed, build_bank
    from synthaug.adapters.nnunet.settings import read_settings

    def write(dataset: str = MR, **settings) -> Path:
        path = write_settings(tmp_path, **({"bank": "bank{fold}.safetensors"} | settings))
        monkeypatch.setenv("SYNTHAUG_CONFIG", str(path))
        if settings.get("lesions") != "shapes":
            chosen = read_settings()
            build_bank(Preprocessed.open(dataset), 0, chosen).save(chosen.bank_path(0))
        return path

    return write
