"""RULES: pure state machines. A message and the time go in, effects come out; nothing else happens.

Who comes in: messages, commands, time (``now`` is an argument). Who goes out: effects, which a driver in
``net`` performs. No I/O, logging, randomness, threads or clocks in here, so every test takes a millisecond and every
bug has a transcript.
"""
