"""Make ``tests/data/gligan_monai_1.4.0.safetensors``: what MONAI 1.4.0's SwinUNETR computes from seeded weights.

Run it where MONAI 1.4.0 is installed; it needs no other part of this project:

    python -m venv monai14 && monai14/bin/pip install torch==2.13.0 monai==1.4.0 einops safetensors
    monai14/bin/python tests/make_gligan_reference.py

Weights and inputs are not stored: `reference_state` and `reference_input` make them again from names and seeds, here
and in the test.
"""

import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

REFERENCE = Path(__file__).parent / "data" / "gligan_monai_1.4.0.safetensors"
FEATURE_SIZE, SIDE, STRIDE = 12, 64, 8
INPUT_CHANNELS = (4, 2)


def reference_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights for every floating-point parameter: standard normal numbers seeded by the CRC-32 of its name.

    Matrices and kernels are divided by the square root of their fan-in. Vectors are divided by 10, and those named
    ``weight``, which are scales of normalisations, are 1 plus that. Integer buffers stay.
    """
    state = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            if value.ndim > 1:
                value = noise / value[0].numel() ** 0.5
            else:
                value = noise / 10 + float(name.endswith("weight"))
        state[name] = value
    return state


def reference_input(in_channels: int) -> Tensor:
    """(1, in_channels, SIDE, SIDE, SIDE) standard normal."""
    generator = torch.Generator().manual_seed(in_channels)
    return torch.randn(1, in_channels, SIDE, SIDE, SIDE, generator=generator)


def kept(output: Tensor) -> Tensor:
    """The part of an output (1, 1, SIDE, SIDE, SIDE) that is stored: every STRIDE-th voxel, from the fourth on."""
    return output[0, 0, 3::STRIDE, 3::STRIDE, 3::STRIDE].contiguous()


@torch.no_grad()
def main() -> None:
    """Write the reference."""
    import monai
    from monai.networks.nets import SwinUNETR
    from safetensors.torch import save_file

    if monai.__version__ != "1.4.0":
        raise SystemExit(f"the reference is made with MONAI 1.4.0, this is {monai.__version__}")
    outputs = {}
    for n in INPUT_CHANNELS:
        network = SwinUNETR((SIDE,) * 3, in_channels=n, out_channels=1, feature_size=FEATURE_SIZE).eval()
        network.load_state_dict(reference_state(network))
        outputs[f"in_channels_{n}"] = kept(network(reference_input(n)))
    REFERENCE.parent.mkdir(exist_ok=True)
    save_file(outputs, REFERENCE, {"monai": monai.__version__, "torch": torch.__version__})


if __name__ == "__main__":
    main()
