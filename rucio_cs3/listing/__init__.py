"""What ``rucio-cs3 transfers`` shows; :mod:`rucio_cs3.listing.entries` has the values, the others where they are."""
