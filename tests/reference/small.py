"""The configuration of tests that train within seconds."""

from reference.config import TrainConfig

SMALL = TrainConfig(variant="mixer_testing", batch_size=8, validation=16)
