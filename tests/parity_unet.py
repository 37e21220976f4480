"""U-Net and U^2-Net by their definitions, in torch. Not a test itself; imports torch."""

import torch
import torch.nn.functional as F
from torch import nn


class TorchUNet(nn.Module):
    """arXiv:1505.04597, figure 1: valid convolutions with ReLU, max pooling, up-convolutions, copies cut to their middle."""

    def __init__(self, channels, classes, width, depth=4):
        super().__init__()
        widths = [width * 2**n for n in range(depth + 1)]
        self.down = nn.ModuleList(self.pair(i, o) for i, o in zip([channels, *widths], widths, strict=False))
        self.upconv = nn.ModuleList(nn.ConvTranspose2d(2 * o, o, 2, stride=2) for o in widths[:-1])
        self.up = nn.ModuleList(self.pair(2 * o, o) for o in widths[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def pair(i, o):
        return nn.ModuleList([nn.Conv2d(i, o, 3), nn.Conv2d(o, o, 3)])

    @staticmethod
    def run(pair, x):
        for conv in pair:
            x = F.relu(conv(x))
        return x

    def forward(self, x):
        copies = []
        for pair in self.down[:-1]:
            x = self.run(pair, x)
            copies.append(x)
            x = F.max_pool2d(x, 2)
        x = self.run(self.down[-1], x)
        for copy, upconv, pair in zip(copies[::-1], reversed(self.upconv), reversed(self.up), strict=True):
            x = upconv(x)
            top, left = (copy.shape[2] - x.shape[2]) // 2, (copy.shape[3] - x.shape[3]) // 2
            copy = copy[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = self.run(pair, torch.cat([copy, x], 1))
        return self.head(x)


def unet_names(ours, _):
    """`down1_conv2` is `down.0.1`."""
    part, _, rest = ours.partition("_")
    if part == "head":
        return "head"
    kind, number = part.rstrip("0123456789"), int(part.lstrip("downup")) - 1
    return f"upconv.{number}" if rest == "upconv" else f"{kind}.{number}.{int(rest[-1]) - 1}"


class TorchRSU(nn.Module):
    """arXiv:2005.09007, figure 2 e, and RSU-4F."""

    def __init__(self, channels, scales, inside, out, dilated):
        super().__init__()
        self.dilated, self.scales = dilated, scales
        dilations = [2**n if dilated else 1 for n in range(scales)]
        dilations[-1] = dilations[-1] if dilated else 2
        self.entry = self.layer(channels, out, 1)
        self.encode = nn.ModuleList(
            self.layer(inside if n else out, inside, dilation) for n, dilation in enumerate(dilations)
        )
        self.decode = nn.ModuleList(
            self.layer(2 * inside, inside if n else out, dilations[n]) for n in range(scales - 1)
        )

    @staticmethod
    def layer(i, o, dilation):
        conv = nn.Conv2d(i, o, 3, padding=dilation, dilation=dilation)
        return nn.Sequential(conv, nn.BatchNorm2d(o), nn.ReLU())

    def forward(self, x):
        entry = x = self.entry(x)
        maps = []
        for n, layer in enumerate(self.encode):
            x = layer(x)
            maps.append(x)
            if not self.dilated and n < self.scales - 2:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        for n in range(self.scales - 2, -1, -1):
            x = self.decode[n](torch.cat([like(x, maps[n]), maps[n]], 1))
        return x + entry


def like(x, other):
    return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)


class TorchU2Net(nn.Module):
    """arXiv:2005.09007, figure 5; seven maps of logits, the fused one first."""

    def __init__(self, contracting, expanding):
        super().__init__()
        inputs = [3, *(out for _, _, out, _ in contracting)]
        self.stage = nn.ModuleList(TorchRSU(i, *stage) for i, stage in zip(inputs, contracting, strict=False))
        widths = [out for _, _, out, _ in contracting]
        below, decoders = widths[-1], []
        for stage, skip in zip(expanding, widths[-2::-1], strict=True):
            decoders.append(TorchRSU(below + skip, *stage))
            below = stage[2]
        self.decoder = nn.ModuleList(reversed(decoders))
        outs = [stage[2] for stage in reversed(expanding)] + [widths[-1]]
        self.side = nn.ModuleList(nn.Conv2d(out, 1, 3, padding=1) for out in outs)
        self.fuse = nn.Conv2d(len(outs), 1, 1)

    def forward(self, x):
        image, maps = x, []
        for n, stage in enumerate(self.stage):
            x = stage(x)
            maps.append(x)
            if n < len(self.stage) - 1:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        for n in range(len(self.decoder) - 1, -1, -1):
            maps[n] = x = self.decoder[n](torch.cat([like(x, maps[n]), maps[n]], 1))
        sides = [like(side(x), image) for side, x in zip(self.side, maps, strict=True)]
        return [self.fuse(torch.cat(sides, 1)), *sides]


def u2net_names(ours, leaf):
    """`stage1/encode2_conv` is `stage.0.encode.1.0`, its norm `stage.0.encode.1.1`."""
    block, _, layer = ours.partition("/")
    kind, number = block.rstrip("0123456789"), block.lstrip("abcdefghijklmnopqrstuvwxyz")
    if not layer:
        return f"{kind}.{int(number) - 1}" if number else kind
    name, _, what = layer.partition("_")
    part, place = name.rstrip("0123456789"), name.lstrip("abcdefghijklmnopqrstuvwxyz")
    inside = "entry" if part == "input" else f"{part}.{int(place) - 1}"
    return f"{kind}.{int(number) - 1}.{inside}.{0 if what == 'conv' else 1}"
