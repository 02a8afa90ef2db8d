"""Load tests and the comparison of Mixer, ViT and BiT: `python -m loadtest`, and a locust file.

In: a gateway and a Triton over the network, started here or by somebody else. Out: results as JSON,
and a report made from them.
"""
