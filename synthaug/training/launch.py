"""The trainers' scripts: as modules, and as processes that accelerate starts."""

import importlib.util
import logging
import subprocess
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from synthaug.shipped import shipped_folder

TRAINERS = {
    "segmentation": "a tumour segmentation network, with tumours inserted into its batches",
    "gan": "the GAN generator, one network that paints all channels of a lesion",
    "diffusion": "the diffusion generator, which paints in a few steps",
    "thin": "a thinner copy of a trained generator",
}
"""Name of a script in trainers/ to what it trains."""


def trainer_file(name: str) -> Path:
    """Find the script of a trainer.

    Raises:
        ValueError: there is none of this name.
        FileNotFoundError: no trainers came with this synthaug.
    """
    if name not in TRAINERS:
        raise ValueError(f"trainer: expected one of {', '.join(TRAINERS)}, got {name!r}")
    return shipped_folder("trainers") / f"{name}.py"


def load_trainer(name: str) -> ModuleType:
    """Import a trainer's script as a module, once, to call its ``train(config, out)`` in this process.

    Example:
        >>> load_trainer("gan").train(read_config(find_config("gan_tiny"), GANConfig), Path("runs/x"))  # doctest: +SKIP
    """
    file, known_as = trainer_file(name), f"synthaug.trainers.{name}"  # as it would be imported from a wheel
    if known_as not in sys.modules:
        spec = importlib.util.spec_from_file_location(known_as, file)
        assert spec is not None and spec.loader is not None  # of a file that ends in .py there always are
        module = sys.modules[known_as] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[known_as]
            raise
    return sys.modules[known_as]


def launch_trainer(name: str, words: Sequence[str], options: Sequence[str] = ()) -> int:
    """Run a trainer's script by accelerate's launcher.

    Args:
        name: one of `TRAINERS`.
        words: command line of the script.
        options: options of ``accelerate launch``.

    Returns:
        The exit code of the script, of the first process that failed where there are several; 128 and the signal's
        number where one ended it. What is wrong was printed by the script.

    Raises:
        ValueError: options that accelerate does not know, or that do not fit together.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    script, parser = str(trainer_file(name)), launch_command_parser()
    parser.exit_on_error = False
    try:
        told, unknown = parser.parse_known_args([*options, script, *words])
    except ArgumentError as error:
        raise ValueError(f"option of accelerate launch: {error}") from error
    if unknown or told.training_script != script:
        stray = unknown or [told.training_script]
        raise ValueError(f"expected key=value, or options of accelerate launch, got {' '.join(stray)}")
    # whoever trains with synthaug has not called `accelerate launch`; and the script says itself what is wrong
    logging.getLogger("accelerate.commands.launch").addFilter(_is_not_about_defaults)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(told)
    except subprocess.CalledProcessError as error:
        code = error.returncode
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
    else:
        return 0
    return code if code >= 0 else 128 - code


def _is_not_about_defaults(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("The following values were not passed to `accelerate launch`")
