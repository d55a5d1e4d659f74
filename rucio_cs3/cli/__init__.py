"""The command ``rucio-cs3``. Begin at :mod:`rucio_cs3.cli.main`; each subcommand has a module of its own."""
