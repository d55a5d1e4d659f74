"""One transfer between two sites; knows no Rucio. Read :mod:`rucio_cs3.transfers.ladder` first."""
