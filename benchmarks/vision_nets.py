"""The networks of which two packages carry the weights: EfficientNet-lite0, and HED's edges."""

import h5py
import torch
from torch import nn
from torch.nn import functional as F

# Size of the kernel, stride, factor of expansion, channels and repetitions of each stage.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
          (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))  # fmt: skip


def _same(x, size, stride):
    """Pad as TensorFlow does, more at the end where the sum is odd."""
    side = x.shape[-1]
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return F.pad(x, (total // 2, total - total // 2) * 2)


class Conv(nn.Conv2d):
    def forward(self, x):
        return super().forward(_same(x, self.kernel_size[0], self.stride[0]))


def _norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, a, b, size, stride, factor):
        super().__init__()
        wide = a * factor
        if factor > 1:
            self._expand_conv, self._bn0 = Conv(a, wide, 1, bias=False), _norm(wide)
        self._depthwise_conv = Conv(wide, wide, size, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = Conv(wide, b, 1, bias=False), _norm(b)
        self.expands, self.adds = factor > 1, stride == 1 and a == b

    def forward(self, x):
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Classes of ImageNet, from pixels of mean 127 divided by 128."""

    def __init__(self, path):
        super().__init__()
        self._conv_stem, self._bn0 = Conv(3, 32, 3, 2, bias=False), _norm(32)
        blocks, a = [], 32
        for size, stride, factor, b, count in STAGES:
            for i in range(count):
                blocks.append(Block(a, b, size, stride if i == 0 else 1, factor))
                a = b
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Conv(a, 1280, 1, bias=False), _norm(1280)
        self._fc = nn.Linear(1280, 1000)
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class Edges(nn.Module):
    """HED: VGG16 with a side output of each of its five scales, fused to a map of edges.

    Pixels are blue, green and red, less their means over ImageNet.
    """

    SIZES = (2, 2, 3, 3, 3)

    def __init__(self, path):
        super().__init__()
        self.blocks, self.sides = nn.ModuleList(), nn.ModuleList()
        with h5py.File(path) as file:
            for i, count in enumerate(self.SIZES, 1):
                names = ["conv2d", *(f"conv2d_{k}" for k in range(1, count))]
                convs = [_conv(file[f"block{i}/layers/{name}/vars"]) for name in names]
                self.blocks.append(nn.ModuleList(convs))
                self.sides.append(_conv(file[f"dsn{i}/vars"]))
            self.fuse = _conv(file["fuse/vars"])

    def forward(self, x):
        size, sides = x.shape[2:], []
        for i, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            x = F.max_pool2d(x, 2, ceil_mode=True) if i else x
            for conv in block:
                x = F.relu(conv(x))
            sides.append(F.interpolate(side(x), size, mode="bilinear"))
        return torch.sigmoid(self.fuse(torch.cat(sides, 1)))


def _conv(variables):
    kernel, bias = variables["0"][()].transpose(3, 2, 0, 1), variables["1"][()]
    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], padding="same")
    conv.weight.data = torch.tensor(kernel)
    conv.bias.data = torch.tensor(bias)
    return conv
