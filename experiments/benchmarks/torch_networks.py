"""The training step of ``training_cost`` in PyTorch, as its users write it.

Imported only where PyTorch is installed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def madry_mnist(shape: tuple[int, ...], widths: tuple[int, ...]) -> nn.Module:
    """The MNIST network of Madry et al. 2018."""
    one, two, full = widths
    size = (shape[0] // 4) * (shape[1] // 4) * two
    return nn.Sequential(
        nn.Conv2d(shape[2], one, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(one, two, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(size, full), nn.ReLU(), nn.Linear(full, 10),
    )  # fmt: skip


class _Block(nn.Module):
    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(a)
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(b)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or a != b:
            self.shortcut = nn.Conv2d(a, b, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(active)
        y = self.conv1(active)
        return x + self.conv2(functional.relu(self.norm2(y)))


def preact_resnet18(shape: tuple[int, ...], widths: tuple[int, ...]) -> nn.Module:
    """PreActResNet-18 with a normalisation at the end, as Rice et al. 2020 have it."""
    blocks, before = [], widths[0]
    for number, width in enumerate(widths):
        for k in range(2):
            blocks.append(_Block(before, width, 2 if number and not k else 1))
            before = width
    return nn.Sequential(
        nn.Conv2d(shape[2], widths[0], 3, padding=1, bias=False),
        *blocks,
        nn.BatchNorm2d(before),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(before, 10),
    )


def step(
    net: nn.Module,
    x: np.ndarray,
    y: np.ndarray,
    eps: float,
    steps: int,
    threads: int,
    channels_last: bool = False,
) -> Callable[[], Any]:
    """A step of PGD adversarial training with SGD: an attack in eval mode, an update.

    Args:
      net: the network; it is changed.
      x: images (B, H, W, C) in [0, 1].
      y: labels (B,).
      eps: radius, in pixels.
      steps: of the attack, 2.5 eps / steps long each.
      threads: of the processor.
      channels_last: keep features in the layout that has the channels last.
    """
    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)
    x0 = torch.tensor(x.transpose(0, 3, 1, 2).copy()).to(memory_format=layout)
    labels = torch.tensor(y.astype(np.int64))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    low, high = (x0 - eps).clamp(0, 1), (x0 + eps).clamp(0, 1)

    def run() -> None:
        net.eval()
        moved = (x0 + torch.empty_like(x0).uniform_(-eps, eps)).clamp(0, 1)
        for _ in range(steps):
            moved.requires_grad_(True)
            loss = functional.cross_entropy(net(moved), labels, reduction='sum')
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + 2.5 * eps / steps * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, low), high)
        net.train()
        optimizer.zero_grad()
        functional.cross_entropy(net(moved), labels).backward()
        optimizer.step()

    return run
