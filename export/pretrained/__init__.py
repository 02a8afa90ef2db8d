"""Published weights by name: which there are, their download, and its check.

In: a name, and the network or what it gave before. Out: a file or folder of weights here.
"""
