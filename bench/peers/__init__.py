"""edgegen beside its peers: the same weights and inputs, in turns, in one run.

Each contestant is a process of its own, in an environment of its own, that does nothing while
another has its turn. ``worker.py``, ``protocol.py`` and ``adapters/`` run in those environments
and know only the standard library and the peer; all else is the driver's.
"""
