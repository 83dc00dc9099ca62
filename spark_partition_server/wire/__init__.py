"""BYTES: messages to frames and back, the payload codec, error codes and the ZMTP engine.

Who comes in: octets, frames, user values. Who goes out: frames, octets, messages. The specification is PROTOCOL.md
in this folder. Nothing here opens a socket, starts a thread or reads a clock.
"""
