"""Files of a cloud as people handle them: walk, count, copy many and whole trees, remove.

Read :mod:`rucio_cs3.files.trees` first. Each module is of use without the command line: what ``rucio-cs3`` prints is
what these yield. Imports no Rucio.
"""
