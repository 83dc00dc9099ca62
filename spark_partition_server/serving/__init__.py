"""Answering: what a server does with the messages that a listener hands it. A room above ``net``; knows no client.

``answering`` judges messages, ``desk`` keeps their order, ``jobs`` and ``batches`` run methods, ``replies`` frames what
they return.
"""
