"""All bytes of one version of a file; begin at :mod:`rucio_cs3.cs3.downloads.downloads`."""
