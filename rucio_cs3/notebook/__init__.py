"""What :mod:`rucio_cs3.cloud_storage` and :mod:`rucio_cs3.filesystem` are made of: clouds for programs of people."""
