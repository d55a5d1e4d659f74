"""The commands on files: ls, stat, put, get, cat, rm, mv, mkdir, du, df, put-tree, get-tree.

Each parses its options, asks :mod:`rucio_cs3.files` and prints.
"""
