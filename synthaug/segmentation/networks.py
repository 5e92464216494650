"""The networks that the segmentation trainer knows by name, all of them MONAI's, behind one way of calling them."""

import math
from typing import Annotated, Literal

import torch
from monai.networks import nets
from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator
from torch import Tensor, nn
from typing_extensions import override

from synthaug.config import Section
from synthaug.geometry import triple
from synthaug.memory_format import channels_last
from synthaug.precision import short_in_fp32

Levels = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Size = tuple[int, int, int]
PerAxis = PositiveInt | tuple[PositiveInt, PositiveInt, PositiveInt]


class NetworkConfig(Section):
    """Settings of a network; all have a factor that patch sides are multiples of, and a number of trained heads.

    Attributes:
        name: of MONAI's network: DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNETR, AttentionUnet or
            BasicUNetPlusPlus; the others are those of one or more of them.
        filters: channels at each level.
        strides: of each level, a number or one for each axis.
        kernels: of each level, likewise; 3 where not given.
        res_block: residual blocks.
        deep_supervision: levels below the output that have a loss, too.
        dropout: share of the channels that are dropped.
        init_filters: channels at the first level, doubled at each further one.
        blocks_down: blocks at each level of the encoder.
        blocks_up: blocks at each level of the decoder.
        num_groups: of the group normalisation.
        feature_size: channels at the first level.
        depths: transformer blocks at each level.
        num_heads: attention heads, at each level.
        window_size: side of the attention's windows.
        use_v2: a residual block before each level.
        use_checkpoint: less memory for more time.
        hidden_size: of the transformer's tokens.
        mlp_dim: of its feed-forward layers.
        features: channels at the six levels.
    """

    name: str

    @property
    def factor(self) -> int:
        """Number that patch sides must be multiples of."""
        raise NotImplementedError

    @property
    def factors(self) -> Size:
        """The same along each axis."""
        return (self.factor,) * 3

    @property
    def heads(self) -> int:
        """Outputs that have a loss: the segmentation and those of deep supervision."""
        return 1 + getattr(self, "deep_supervision", 0)

    @property
    def has_unused_parameters(self) -> bool:
        """Whether some weights have no part in the loss, which several processes have to look for."""
        return False

    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        """Make MONAI's network."""
        raise NotImplementedError


class DynUNet(NetworkConfig):
    """A U-Net as nnU-Net plans them (Isensee et al. 2021)."""

    name: Literal["DynUNet"] = "DynUNet"
    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=3)] = (32, 64, 128, 256, 320)
    strides: Annotated[tuple[PerAxis, ...], Field(min_length=3)] = (1, 2, 2, 2, 2)
    kernels: tuple[PerAxis, ...] | None = None
    res_block: bool = False
    deep_supervision: NonNegativeInt = 1
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _levels(self):
        if len(self.filters) != len(self.strides) or self.deep_supervision > len(self.strides) - 2:
            raise ValueError("expected as many filters as strides, and deep_supervision at most two fewer")
        if self.kernels is not None and len(self.kernels) != len(self.strides):
            raise ValueError(f"kernels: expected as many as strides, {len(self.strides)}, got {len(self.kernels)}")
        return self

    @property
    @override
    def factor(self) -> int:
        return max(self.factors)

    @property
    @override
    def factors(self) -> Size:
        steps = [(s, s, s) if isinstance(s, int) else s for s in self.strides]
        return tuple(math.prod(axis) for axis in zip(*steps, strict=True))

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.DynUNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=outputs,
            kernel_size=self.kernels or [3] * len(self.strides),
            strides=self.strides,
            upsample_kernel_size=self.strides[1:],
            filters=self.filters,
            dropout=self.dropout or None,
            deep_supervision=self.deep_supervision > 0,
            deep_supr_num=max(1, self.deep_supervision),
            res_block=self.res_block,
        )


class SegResNet(NetworkConfig):
    """Residual encoder-decoder of Myronenko (2018), without its autoencoder branch."""

    name: Literal["SegResNet"]
    init_filters: PositiveInt = 16
    blocks_down: Levels = (1, 2, 2, 4)
    blocks_up: tuple[PositiveInt, ...] = (1, 1, 1)
    num_groups: PositiveInt = 8
    dropout: Rate = 0.0

    @property
    @override
    def factor(self) -> int:
        return 2 ** (len(self.blocks_down) - 1)

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.SegResNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=outputs,
            init_filters=self.init_filters,
            blocks_down=self.blocks_down,
            blocks_up=self.blocks_up,
            num_groups=self.num_groups,
            norm=("GROUP", {"num_groups": self.num_groups}),
            dropout_prob=self.dropout or None,
        )


class SegResNetDS(NetworkConfig):
    """SegResNet with deep supervision, as in MONAI's Auto3DSeg."""

    name: Literal["SegResNetDS"]
    init_filters: PositiveInt = 32
    blocks_down: Levels = (1, 2, 2, 4)
    deep_supervision: NonNegativeInt = 1

    @model_validator(mode="after")
    def _levels(self):
        if self.deep_supervision > len(self.blocks_down) - 2:
            raise ValueError("expected deep_supervision at most two fewer than blocks_down")
        return self

    @property
    @override
    def factor(self) -> int:
        return 2 ** (len(self.blocks_down) - 1)

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.SegResNetDS(
            spatial_dims=3,
            in_channels=channels,
            out_channels=outputs,
            init_filters=self.init_filters,
            blocks_down=self.blocks_down,
            norm="INSTANCE",
            dsdepth=self.heads,
        )


class SwinUNETR(NetworkConfig):
    """Swin transformer encoder with a convolutional decoder (Hatamizadeh et al. 2022)."""

    name: Literal["SwinUNETR"]
    feature_size: Annotated[int, Field(gt=0, multiple_of=12)] = 24
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
    num_heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24)
    window_size: PositiveInt = 7
    dropout: Rate = 0.0
    use_v2: bool = False
    use_checkpoint: bool = False

    @property
    @override
    def factor(self) -> int:
        return 32

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.SwinUNETR(
            in_channels=channels,
            out_channels=outputs,
            feature_size=self.feature_size,
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=self.window_size,
            drop_rate=self.dropout,
            use_checkpoint=self.use_checkpoint,
            use_v2=self.use_v2,
            spatial_dims=3,
        )


class UNETR(NetworkConfig):
    """Vision transformer encoder with a convolutional decoder (Hatamizadeh et al. 2022)."""

    name: Literal["UNETR"]
    feature_size: PositiveInt = 16
    hidden_size: PositiveInt = 768
    mlp_dim: PositiveInt = 3072
    num_heads: PositiveInt = 12
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _heads_fit(self):
        if self.hidden_size % self.num_heads:
            raise ValueError(f"expected hidden_size to be a multiple of num_heads, {self.num_heads}")
        return self

    @property
    @override
    def factor(self) -> int:
        return 16

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.UNETR(
            in_channels=channels,
            out_channels=outputs,
            img_size=patch_size,
            feature_size=self.feature_size,
            hidden_size=self.hidden_size,
            mlp_dim=self.mlp_dim,
            num_heads=self.num_heads,
            dropout_rate=self.dropout,
        )


class AttentionUnet(NetworkConfig):
    """U-Net with attention gates (Oktay et al. 2018)."""

    name: Literal["AttentionUnet"]
    filters: Levels = (32, 64, 128, 256, 320)
    strides: tuple[PositiveInt, ...] = (2, 2, 2, 2)
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _levels(self):
        if len(self.filters) != len(self.strides) + 1:
            raise ValueError("expected one filter more than strides")
        return self

    @property
    @override
    def factor(self) -> int:
        return math.prod(self.strides)

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.AttentionUnet(3, channels, outputs, self.filters, self.strides, dropout=self.dropout)


class BasicUNetPlusPlus(NetworkConfig):
    """U-Net++ (Zhou et al. 2018); deep supervision takes none or all three of its further heads."""

    name: Literal["BasicUNetPlusPlus"]
    features: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (
        *(32, 32, 64, 128, 256),
        32,
    )
    deep_supervision: Literal[0, 3] = 3
    dropout: Rate = 0.0

    @property
    @override
    def factor(self) -> int:
        return 16

    @property
    @override
    def has_unused_parameters(self) -> bool:
        return self.deep_supervision == 0

    @override
    def build(self, channels: int, outputs: int, patch_size: Size) -> nn.Module:
        return nets.BasicUNetPlusPlus(
            3, channels, outputs, self.features, deep_supervision=self.deep_supervision > 0, dropout=self.dropout
        )


_CONFIGS = (DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNETR, AttentionUnet, BasicUNetPlusPlus)
NETWORKS: dict[str, type[NetworkConfig]] = {config.__name__: config for config in _CONFIGS}
"""Configurations by the network's name."""


def _tag(value) -> str:
    return value.get("name", "DynUNet") if isinstance(value, dict) else getattr(value, "name", "")


AnyNetwork = Annotated[
    Annotated[DynUNet, Tag("DynUNet")]
    | Annotated[SegResNet, Tag("SegResNet")]
    | Annotated[SegResNetDS, Tag("SegResNetDS")]
    | Annotated[SwinUNETR, Tag("SwinUNETR")]
    | Annotated[UNETR, Tag("UNETR")]
    | Annotated[AttentionUnet, Tag("AttentionUnet")]
    | Annotated[BasicUNetPlusPlus, Tag("BasicUNetPlusPlus")],
    Discriminator(
        _tag,
        custom_error_type="unknown_network",
        custom_error_message=f"unknown name; known are {', '.join(NETWORKS)}",
    ),
]
"""Field of a configuration: one of `NETWORKS`, told by its ``name``."""


class SegmentationNetwork(nn.Module):
    """A network that returns, while it trains, a list of logits: the segmentation first, then deep supervision's.

    Evaluated, it returns the segmentation's logits alone. Weights are in channels-last layout, without which 3-D
    convolutions crawl in backward on CPUs.

    Args:
        config: settings of the network.
        channels: C, channels of the image.
        outputs: K, outputs of the segmentation.
        patch_size: (X, Y, Z) in voxels, multiples of ``config.factor``.

    Raises:
        ValueError: a patch size or settings that the network cannot take.
    """

    def __init__(self, config: NetworkConfig, channels: int, outputs: int, patch_size: Size):
        super().__init__()
        check_patch_size(config, patch_size)
        self.network = channels_last(config.build(channels, outputs, triple(patch_size)))

    @short_in_fp32
    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """Compute logits (B, K, ...) of (B, C, X, Y, Z), a list of them while it trains."""
        output = self.network(image.contiguous(memory_format=torch.channels_last_3d))
        if isinstance(output, Tensor):
            heads = list(output.unbind(1)) if output.ndim == 6 else [output]  # DynUNet stacks its heads
        else:
            heads = list(output)
            if isinstance(self.network, nets.BasicUNetPlusPlus):
                heads = heads[::-1]  # its last is the deepest network's
        return heads if self.training else heads[0]


def check_patch_size(config: NetworkConfig, patch_size: Size) -> None:
    """Check that a network can take patches of that size.

    Raises:
        ValueError: sides that are no multiples of the network's factor, or a single voxel at its bottom.
    """
    factors = config.factors
    wrong = any(side % factor for side, factor in zip(patch_size, factors, strict=True))
    # more than one voxel at the bottom: not all sides may be their factors
    if wrong or sum(side // factor for side, factor in zip(patch_size, factors, strict=True)) < 4:
        factor = factors[0] if len(set(factors)) == 1 else list(factors)
        raise ValueError(
            f"patch_size: expected multiples of {factor} for this {config.name}, and more than one voxel at its "
            f"bottom, got {list(patch_size)}"
        )


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Collect parameters and buffers, each once; a DynUNet's state_dict has every layer under two names."""
    return dict(network.named_parameters()) | dict(network.named_buffers())
