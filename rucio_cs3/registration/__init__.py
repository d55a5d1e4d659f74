"""Existing files of a CS3 cloud become replicas of Rucio in place; read :mod:`.registration` first."""
