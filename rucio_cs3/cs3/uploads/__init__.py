"""A whole, proven file under its name, or nothing new there; begin at :mod:`rucio_cs3.cs3.uploads.uploads`."""
