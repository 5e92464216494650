"""The command line of a trainer's script: how it ends."""

import pytest

from synthaug.training.command import INTERRUPTED, command
from synthaug.training.segmentation_config import SegmentationConfig


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path, capsys):
    def interrupted(config, out):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command(interrupted, SegmentationConfig, "Train")("segmentation_tiny", tmp_path / "run", [])
    assert ended.value.code == INTERRUPTED
    assert f"the same command goes on with {tmp_path / 'run'}" in capsys.readouterr().err
