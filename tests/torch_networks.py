"""The networks of RobustBench as PyTorch modules, with its names for their layers."""

import torch
from torch import nn
from torch.nn import functional


def conv(a, b, size, stride=1, pad=None):
    pad = size // 2 if pad is None else pad
    return nn.Conv2d(a, b, size, stride, pad, bias=False)


class Pixels(nn.Module):
    """Normalises pixels by buffers of the network itself."""

    def __init__(self, mean, std, names=('mu', 'sigma')):
        super().__init__()
        self.pixels = names
        for name, value in zip(names, (mean, std), strict=True):
            if value is not None:
                self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1))

    def normalised(self, x):
        mean, std = self.pixels
        if not hasattr(self, mean):
            return x
        return (x - getattr(self, mean)) / getattr(self, std)


class PreActBlock(nn.Module):
    def __init__(self, a, b, stride, raw):
        super().__init__()
        self.raw = raw
        self.bn1, self.conv1 = nn.BatchNorm2d(a), conv(a, b, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(b), conv(b, b, 3)
        if stride != 1 or a != b:
            self.shortcut = nn.Sequential(conv(a, b, 1, stride))

    def forward(self, x):
        y = functional.relu(self.bn1(x))
        if hasattr(self, 'shortcut'):
            x = self.shortcut(x if self.raw else y)
        return x + self.conv2(functional.relu(self.bn2(self.conv1(y))))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, a, width, stride, shortcut='shortcut'):
        super().__init__()
        self.conv1, self.bn1 = conv(a, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.name = shortcut
        project(self, a, width, stride)

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + getattr(self, self.name)(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, a, width, stride, shortcut='shortcut'):
        super().__init__()
        self.conv1, self.bn1 = conv(a, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.name = shortcut
        project(self, a, 4 * width, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y)))))
        return functional.relu(y + getattr(self, self.name)(x))


def project(block, a, b, stride):
    layers = []
    if stride != 1 or a != b:
        layers = [conv(a, b, 1, stride), nn.BatchNorm2d(b)]
    setattr(block, block.name, nn.Sequential(*layers))


def stages(block, before, widths, counts, expansion=1):
    for number, (width, count) in enumerate(zip(widths, counts, strict=False)):
        blocks = []
        for k in range(count):
            blocks.append(block(before, width, 2 if number and not k else 1))
            before = expansion * width
        yield nn.Sequential(*blocks)


class PreActResNet(Pixels):
    def __init__(
        self, widths, classes=10, raw=False, bn_before_fc=True, mean=None, std=None
    ):
        super().__init__(mean, std)
        self.conv1 = conv(3, widths[0], 3)
        self.layers = []

        def block(a, b, stride):
            return PreActBlock(a, b, stride, raw)

        for k, stage in enumerate(stages(block, widths[0], widths, (2, 2, 2, 2)), 1):
            setattr(self, f'layer{k}', stage)
            self.layers.append(f'layer{k}')
        if bn_before_fc:
            self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = self.conv1(self.normalised(x))
        for name in self.layers:
            x = getattr(self, name)(x)
        if hasattr(self, 'bn'):
            x = functional.relu(self.bn(x))
        return self.linear(functional.avg_pool2d(x, x.shape[-1]).flatten(1))


class ResNet(Pixels):
    def __init__(
        self, block, counts, widths, classes=10, imagenet=False, mean=None, std=None
    ):
        super().__init__(mean, std)
        self.imagenet = imagenet
        self.conv1 = conv(3, widths[0], 7, 2) if imagenet else conv(3, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layers = []

        def named(a, width, stride):
            return block(a, width, stride, 'downsample' if imagenet else 'shortcut')

        made = stages(named, widths[0], widths, counts, block.expansion)
        for k, stage in enumerate(made, 1):
            setattr(self, f'layer{k}', stage)
            self.layers.append(f'layer{k}')
        last = nn.Linear(block.expansion * widths[-1], classes)
        setattr(self, 'fc' if imagenet else 'linear', last)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(self.normalised(x))))
        if self.imagenet:
            x = functional.max_pool2d(x, 3, 2, 1)
        for name in self.layers:
            x = getattr(self, name)(x)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(x) if self.imagenet else self.linear(x)


class WideBlock(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(a), conv(a, b, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(b), conv(b, b, 3)
        self.convShortcut = conv(a, b, 1, stride) if a != b else None

    def forward(self, x):
        y = functional.relu(self.bn1(x))
        if self.convShortcut is not None:
            x = self.convShortcut(y)
        return x + self.conv2(functional.relu(self.bn2(self.conv1(y))))


class Stage(nn.Module):
    """A sequence of blocks under a name of its own."""

    def __init__(self, name, blocks):
        super().__init__()
        self.name = name
        setattr(self, name, blocks)

    def forward(self, x):
        return getattr(self, self.name)(x)


class WideResNet(Pixels):
    def __init__(self, depth, width, classes=10, sub_block1=False, mean=None, std=None):
        super().__init__(mean, std)
        widths, count = [16 * width, 32 * width, 64 * width], (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        made = list(stages(WideBlock, 16, widths, (count,) * 3))
        self.block1, self.block2, self.block3 = (Stage('layer', s) for s in made)
        if sub_block1:
            (extra,) = stages(WideBlock, 16, widths[:1], (count,))
            self.sub_block1 = Stage('layer', extra)
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = self.conv1(self.normalised(x))
        x = functional.relu(self.bn1(self.block3(self.block2(self.block1(x)))))
        return self.fc(functional.avg_pool2d(x, 8).flatten(1))


def padded(x, stride):
    return functional.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


class DMBlock(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.stride = stride
        self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(a), conv(a, b, 3, stride, 0)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(b), conv(b, b, 3)
        self.shortcut = conv(a, b, 1, stride) if a != b else None

    def forward(self, x):
        y = functional.silu(self.batchnorm_0(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.conv_0(padded(y, self.stride))
        return x + self.conv_1(functional.silu(self.batchnorm_1(y)))


class DMWideResNet(Pixels):
    def __init__(self, depth, width, mean, std, classes=10):
        super().__init__(mean, std, ('mean', 'std'))
        widths, count = [16 * width, 32 * width, 64 * width], (depth - 4) // 6
        self.init_conv = conv(3, 16, 3)
        made = stages(DMBlock, 16, widths, (count,) * 3)
        self.layer = nn.Sequential(*(Stage('block', s) for s in made))
        self.batchnorm = nn.BatchNorm2d(widths[-1])
        self.logits = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = self.layer(self.init_conv(self.normalised(x)))
        x = functional.avg_pool2d(functional.silu(self.batchnorm(x)), 8)
        return self.logits(x.flatten(1))


class DMPreActBlock(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.stride = stride
        self.batchnorm_0, self.conv_2d_1 = nn.BatchNorm2d(a), conv(a, b, 3, stride, 0)
        self.batchnorm_1, self.conv_2d_2 = nn.BatchNorm2d(b), conv(b, b, 3)
        if stride != 1 or a != b:
            self.shortcut = conv(a, b, 3, stride, 0)

    def forward(self, x):
        y = self.conv_2d_1(padded(functional.silu(self.batchnorm_0(x)), self.stride))
        if hasattr(self, 'shortcut'):
            x = self.shortcut(padded(x, self.stride))
        return x + self.conv_2d_2(functional.silu(self.batchnorm_1(y)))


class DMPreActResNet(Pixels):
    def __init__(self, widths, mean, std, classes=10):
        super().__init__(mean, std, ('mean', 'std'))
        self.conv_2d = conv(3, widths[0], 3)
        made = stages(DMPreActBlock, widths[0], widths, (2, 2, 2, 2))
        self.layer_0, self.layer_1, self.layer_2, self.layer_3 = made
        self.batchnorm = nn.BatchNorm2d(widths[-1])
        self.logits = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = self.conv_2d(self.normalised(x))
        x = self.layer_3(self.layer_2(self.layer_1(self.layer_0(x))))
        x = functional.avg_pool2d(functional.silu(self.batchnorm(x)), 4)
        return self.logits(x.flatten(1))


def randomised(module, seed=0):
    """Gives every parameter and running statistic values of its own."""
    random = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith('running_var') or (
            name.endswith('weight') and value.ndim == 1
        ):
            value.uniform_(0.5, 1.5, generator=random)
        elif name.endswith(('running_mean', 'bias')):
            value.normal_(0, 0.1, generator=random)
        elif value.ndim > 1 and name.endswith('weight'):
            value.normal_(0, value[0].numel() ** -0.5, generator=random)
    return module.eval()
