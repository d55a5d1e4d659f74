"""Servers to try and test against: real Reva sites, a real Rucio, and embedded CS3 clouds.

Nothing here is meant for production, and nothing outside the sandbox imports it but the demo and the tests.
Read next: ``reva.py`` (real ``revad`` processes), ``rucio_site.py`` (a Rucio server on SQLite and its daemons),
``cloud/`` (CS3 clouds inside this process). ``processes.py`` and ``ports.py`` are what the two starters stand on.
"""
