"""DOORS: sockets, loops and the clock. The only room that imports zmq, opens sockets and reads the time.

Two kinds of doors: the control plane (``control``, over pyzmq: thousands of members, reconnects, fan-in) and the direct
lane (``listener`` and ``lane``, ZMTP over plain sockets: one hop less on each side). No rule of the protocol is decided
here; messages go to a machine of ``core``, and the effects it returns are performed.
"""
