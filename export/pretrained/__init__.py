"""Published weights by name: their list, their download, and the check of the download.

In: a name, and the internet or an earlier download. Out: a file or folder of weights on this
machine.
"""
