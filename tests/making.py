"""What several tests build upon: the cards of the smallest runs there are, for the small stand-in of conftest.py."""

import dataclasses

from lib.card import RunCard

CARD = RunCard(
    network="tiny",
    block="basic",
    blocks_per_stage=1,
    ordering="baseline",
    seed=3,
    dataset="auto",
    train_images=64,
    test_images=40,
    augmentation="crop_flip",
    precision="float32",
    device="cpu",
    epochs=2,
    batch_size=16,
    optimizer="adam",
    weight_decay=0.0001,
    learning_rate=0.001,
    learning_rate_rule="constant",
)
IC_CARD = dataclasses.replace(CARD, ordering="conv_relu_ic", dropout_p=0.05)
