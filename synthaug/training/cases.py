"""The cases of a training run: found, or written as phantoms, and split."""

import zlib
from pathlib import Path

from accelerate import Accelerator

from synthaug import Classes, get_classes
from synthaug.config import ConfigError
from synthaug.data import Case, find_cases, write_phantom_dataset
from synthaug.files import new_folder
from synthaug.remote import local_folder
from synthaug.training.run_config import CasesConfig, PhantomConfig


def open_cases(config: CasesConfig, out: Path, accelerator: Accelerator) -> tuple[list[Case], list[Case]]:
    """Find and split training and validation cases; phantoms are written into the run's folder first.

    Raises:
        ConfigError: no cases, a split that does not fit them, or none left for training.
    """
    folder = cases_folder(config, out, accelerator)
    split = {"validation": config.validation} | ({"train": config.train} if config.train is not None else {})
    try:
        cases = find_cases(folder, config.layout, config.channels, config.group_pattern, split)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    train = [c for c in cases if c.split == "train" or (config.train is None and c.split is None and c.label)]
    if not train:
        raise ConfigError(f"data: no training case is left in {folder}: all {len(cases)} are for validation")
    return train, [case for case in cases if case.split == "validation"]


def cases_folder(config: CasesConfig, out: Path, accelerator: Accelerator) -> Path:
    """Find the folder of the cases; that of phantoms is made by the main process."""
    phantom, classes = config.phantom, get_classes(config.classes)
    if config.folder is not None:
        with accelerator.local_main_process_first():
            return local_folder(config.folder)
    assert phantom is not None  # a configuration has the one or the other
    recipe = phantom.model_dump_json() + repr(classes)
    folder = out / f"phantoms_{zlib.crc32(recipe.encode()):08x}"  # other phantoms, other folder
    with accelerator.main_process_first():
        if not folder.exists():
            write_phantoms(phantom, classes, folder)
    return folder


def write_phantoms(phantom: PhantomConfig, classes: Classes, folder: Path) -> None:
    """Write phantoms with labels of these classes; a run that is killed here leaves no half a data set."""
    with new_folder(folder) as unfinished:
        write_phantom_dataset(unfinished, phantom.count, phantom.seed, phantom.size, classes=classes)
