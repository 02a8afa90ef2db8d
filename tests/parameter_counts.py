"""How many parameters each variant has: what PyTorch's and JAX's networks are both held to."""

# With 1,000 classes at 224 × 224, from the papers and the official code.
PUBLISHED = {
    "mixer_s32": 19_104_624,
    "mixer_s16": 18_528_264,
    "mixer_b32": 60_293_428,
    "mixer_b16": 59_880_472,
    "mixer_l32": 206_939_264,
    "mixer_l16": 208_196_168,
    "mixer_h14": 432_350_952,
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_s32": 22_878_952,
    "vit_b16": 86_567_656,
    "vit_b32": 88_224_232,
    "vit_l16": 304_326_632,
    "vit_l32": 306_535_400,
    "vit_h14": 632_045_800,
    "bit_r50x1": 25_549_352,
    "bit_r50x2": 97_988_712,
    "bit_r50x3": 217_319_080,
    "bit_r101x1": 44_541_480,
    "bit_r101x3": 387_934_888,
    "bit_r152x1": 60_185_128,
    "bit_r152x2": 236_335_208,
    "bit_r152x4": 936_533_224,
    "bit_r200x3": 568_633_000,
}
# This project's own, with 10 classes at 32 × 32.
OURS = {
    "mixer_cifar10": 605_834,
    "vit_cifar10": 610_282,
    "bit_cifar10": 2_683_978,
    "mixer_nano": 109_034,
    "vit_nano": 81_850,
    "bit_nano": 502_058,
    "mixer_testing": 6_122,
    "vit_testing": 15_106,
    "bit_testing": 121_130,
}
