"""A data set on the device: normalised, augmented, served as batches of tensors."""

import functools
from collections.abc import Iterator

import numpy as np
import torch

from lib.cifar10 import DataSet, Split


def channel_statistics(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each colour channel (3,), of values 0 to 255, from exact counts."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for first in range(0, len(images), 1000):  # numpy counts a copy with eight bytes a value
        for channel, values in enumerate(np.moveaxis(images[first : first + 1000], -1, 0)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    levels = np.arange(256)
    mean = (counts * levels).sum(axis=1) / counts.sum(axis=1)
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(variance**0.5, dtype=torch.float32)


class Batches:
    """A split kept on the device, served as (normalised images (B, 3, 32, 32), labels (B,)).

    `statistics` are the training set's, for both splits. The last batch of a pass may be smaller.
    """

    def __init__(
        self, split: Split, statistics: tuple[torch.Tensor, torch.Tensor], batch_size: int, device: torch.device
    ) -> None:
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.mean, self.std = (each.to(device).view(1, 3, 1, 1) for each in statistics)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images once, in file order, not augmented."""
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self._normalised(images), labels

    def shuffled(self, seed: int, augmentation: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images once, in an order and with an augmentation drawn from `seed`, the same on every device.

        Augmentations: "none"; "crop_flip" pads by four black pixels, crops 32x32 at random and mirrors each image with
        probability 1/2, as the CIFAR recipes do (He et al. 2015, Sec. 4.2).
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        if augmentation == "none":
            for chosen in order.split(self.batch_size):
                yield self._normalised(self.images[chosen]), self.labels[chosen]
            return
        shifts = torch.randint(0, 9, (2, len(self), 1), generator=generator).to(self.images.device)
        flips = torch.randint(0, 2, (len(self), 1), generator=generator).to(self.images.device).bool()
        pixels = torch.arange(32, device=self.images.device)
        rows = shifts[0] + pixels
        columns = shifts[1] + torch.where(flips, pixels.flip(0), pixels)
        for step, chosen in enumerate(order.split(self.batch_size)):
            at = slice(step * self.batch_size, step * self.batch_size + len(chosen))
            cut = self.padded[chosen[:, None, None], rows[at, :, None], columns[at, None, :]]
            yield self._normalised(cut), self.labels[chosen]

    @functools.cached_property
    def padded(self) -> torch.Tensor:
        """All images with a margin of four black pixels (N, 40, 40, 3); on a GPU, for the runs of every stream."""
        padded = torch.nn.functional.pad(self.images, (0, 0, 4, 4, 4, 4))
        if padded.is_cuda:
            torch.cuda.current_stream(padded.device).synchronize()
        return padded

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 32, 32, 3) bytes -> (B, 3, 32, 32) floats, standardised by `statistics`."""
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


def served(data: DataSet, batch_size: int, device: torch.device) -> tuple[Batches, Batches]:
    """The training and the test split on the device. On a GPU, test batches hold at least 2,000 images."""
    statistics = channel_statistics(data.train.images)
    test_batch = max(batch_size, 2000) if device.type == "cuda" else batch_size
    return Batches(data.train, statistics, batch_size, device), Batches(data.test, statistics, test_batch, device)
