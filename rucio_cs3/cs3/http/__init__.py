"""HTTP with one site: requests, connections and answers. Knows no CS3; begin at :mod:`rucio_cs3.cs3.http.client`."""
