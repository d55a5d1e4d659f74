"""What is in a cloud and how much room it takes: dumps of folders, audits against Rucio's catalogue, usage.

Begin at :mod:`rucio_cs3.inventory.dump`. Only :mod:`~rucio_cs3.inventory.catalogue_database`,
:mod:`~rucio_cs3.inventory.catalogue_rest` and :mod:`~rucio_cs3.inventory.pushing` import Rucio.
"""
