"""What the engine is compared with: a training loop as people write it, and the same tuned with what PyTorch offers.

Both train the engine's own network with its IC and dropout layers replaced by nn.BatchNorm2d and nn.Dropout.
"""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from benchmarks.contenders import BATCH_SIZE
from benchmarks.stopwatch import Stopwatch
from lib.cifar10 import DataSet, Split
from lib.dropout import Dropout
from lib.ic import IC
from lib.resnet import ResNet

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # CIFAR-10's, as such loops have them
LEARNING_RATE = 0.001


def plain(module: nn.Module) -> nn.Module:
    """The network, changed in place to PyTorch's own layers only; its parameters stay as they are."""
    if isinstance(module, ResNet):
        module.fuses = False
    for name, child in module.named_children():
        if isinstance(child, IC):
            setattr(module, name, nn.Sequential(child.normalise, nn.Dropout(child.drop.p)))
        elif isinstance(child, Dropout):
            setattr(module, name, nn.Dropout(child.p))
        else:
            plain(child)
    return module


class Pictures(Dataset):
    """Does per item what torchvision.datasets.CIFAR10 does, for images other than the official ones."""

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = split.images, split.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loaders(folder: Path, data: DataSet, device: torch.device) -> tuple[DataLoader, DataLoader]:
    """The usual training and test loaders. Worker processes pay off beside a GPU, not on a CPU's cores."""
    as_tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augmented = transforms.Compose([transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), *as_tensor])
    as_it_is = transforms.Compose(as_tensor)
    train: Dataset
    test: Dataset
    if data.name == "cifar10":
        train = datasets.CIFAR10(folder, train=True, transform=augmented)
        test = datasets.CIFAR10(folder, train=False, transform=as_it_is)
    else:
        train, test = Pictures(data.train, augmented), Pictures(data.test, as_it_is)
    on_gpu = device.type == "cuda"
    workers = 4 if on_gpu else 0
    # As in a script: a process that was itself spawned, like this one, would spawn them, each importing PyTorch anew.
    start = "fork" if on_gpu else None
    loader = functools.partial(
        DataLoader, batch_size=BATCH_SIZE, num_workers=workers, pin_memory=on_gpu, multiprocessing_context=start
    )
    return loader(train, shuffle=True), loader(test)


class PlainLoop:
    """Eager float32, Adam, and loss.item() at every step."""

    def __init__(self, model: nn.Module, folder: Path, data: DataSet, device: torch.device) -> None:
        torch.backends.cudnn.benchmark = True
        self.device = device
        self.model = plain(model).to(device)
        self.optimizer = self._optimizer()
        self.criterion = nn.CrossEntropyLoss()
        self.train_loader, self.test_loader = loaders(folder, data, device)
        self.watch = Stopwatch(self.model, self.optimizer)
        self.running_loss = 0.0
        self.images = 0  # trained on so far

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def steps(self) -> Iterator[None]:
        """Train endlessly, one step at a time."""
        while True:
            self.model.train()
            for images, labels in self.watch.over(self.train_loader):
                images, labels = images.to(self.device), labels.to(self.device)
                self.optimizer.zero_grad()
                loss = self.criterion(self.model(images), labels)
                loss.backward()
                self.optimizer.step()
                self.running_loss += loss.item()
                self.images += len(labels)
                yield None

    def evaluate(self, batches: int) -> int:
        """Evaluate that many test batches; return their number of images."""
        self.model.eval()
        images_seen, correct = 0, 0
        with torch.no_grad():
            for images, labels in itertools.islice(self.test_loader, batches):
                images, labels = images.to(self.device), labels.to(self.device)
                correct += (self.model(images).argmax(dim=1) == labels).sum().item()
                images_seen += len(labels)
        self.model.train()
        return images_seen


class TunedLoop(PlainLoop):
    """The same with what PyTorch offers: channels-last, autocast, fused Adam, and no waiting for the loss.

    In bfloat16, or in float32 where that is faster.
    """

    def __init__(self, model: nn.Module, folder: Path, data: DataSet, device: torch.device, precision: str) -> None:
        super().__init__(model.to(memory_format=torch.channels_last), folder, data, device)
        self.in_bfloat16 = precision == "bfloat16"

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)

    def steps(self) -> Iterator[None]:
        losses = torch.zeros((), device=self.device)
        while True:
            self.model.train()
            for images, labels in self.watch.over(self.train_loader):
                images, labels = self._moved(images), labels.to(self.device, non_blocking=True)
                self.optimizer.zero_grad(set_to_none=True)
                with self._autocast():
                    loss = self.criterion(self.model(images), labels)
                loss.backward()
                self.optimizer.step()
                losses += loss.detach()
                self.images += len(labels)
                yield None

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.in_bfloat16)

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self.device, memory_format=torch.channels_last, non_blocking=True)

    def evaluate(self, batches: int) -> int:
        self.model.eval()
        images_seen, correct = 0, torch.zeros((), dtype=torch.int64, device=self.device)
        with torch.inference_mode(), self._autocast():
            for images, labels in itertools.islice(self.test_loader, batches):
                logits = self.model(self._moved(images))
                correct += (logits.argmax(dim=1) == labels.to(self.device, non_blocking=True)).sum()
                images_seen += len(labels)
        self.model.train()
        return images_seen
