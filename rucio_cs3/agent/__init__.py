"""The agent: a daemon that executes the requests which Rucio's submitter gave to transfertool ``cs3``.

:mod:`rucio_cs3.agent.daemon` is its life, :mod:`rucio_cs3.agent.dispatcher` what it does all the time. What one
transfer is, is in :mod:`rucio_cs3.transfers`.
"""
