"""GARDEN: the only room that imports pyspark. Task identity, slots, addresses, the job, the result.

pyspark is imported inside functions: a client or a test without Spark never pays for it.
"""
