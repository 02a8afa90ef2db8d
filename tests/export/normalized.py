"""ImageNet's mean and deviation, and the flags that state them."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZED = ("--mean", *map(str, MEAN), "--std", *map(str, STD))
