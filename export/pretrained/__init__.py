"""Published weights by name: what there is, and how it comes here, whole and checked.

In: a name, and the network or what it gave before. Out: a file or folder of weights here.
"""
