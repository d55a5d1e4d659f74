"""RSEs as a file describes them: what Rucio lacks for that, and doing it. The command is ``rucio-cs3 rse apply``."""
