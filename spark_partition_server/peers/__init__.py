"""What a communicator is made of: requests, messages and collectives of objects and of buffers, its life.

``comm.Comm`` joins them; below them is one rank's door (``net.peer_door``).
"""
