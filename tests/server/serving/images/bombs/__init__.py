"""Small files that are expensive to decode, all at a given limit of pixels and within 32 MiB.

In: the limit. Out: for each name the bytes of a file. Nothing here is downloaded or copied: the
writers follow the specifications, or call Pillow's encoders with options that nobody else uses.
"""
