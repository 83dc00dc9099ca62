"""Every exception this library raises, one tree::

    SparkPartitionServerError
    ├── ProtocolError                 bytes or messages that break wire/PROTOCOL.md
    │   ├── LocalProtocolError        we broke a rule (a bug here, or a message that could not be built)
    │   ├── RemoteProtocolError       the other side did                         .code
    │   └── VersionMismatch           no protocol version in common              .local .remote
    ├── CallError                     one call    .rank .method .endpoint .code .definite
    │   ├── CallTimeout               (also TimeoutError) no answer by the deadline
    │   ├── Unavailable               (also ConnectionError) nobody serves the partition, or nobody can be reached
    │   ├── Overloaded                refused for lack of room; try again later
    │   ├── MethodNotFound            the server has no method of that name
    │   ├── InvalidArguments          the arguments do not fit the method, or no such partition
    │   ├── MessageTooLarge           request or reply over the limit
    │   ├── HandlerError              the method raised     .remote_type .remote_message .remote_traceback
    │   └── CallOutcomeUnknown        (also ConnectionError) the server was lost after the request left
    │       └── StreamLost            ... when items of a stream had come          .items
    ├── ClusterError                  starting, running and stopping a cluster
    │   ├── InvalidCluster            (also ValueError) an RDD without partitions, a server of the wrong type
    │   ├── NotSerializable           (also TypeError) the server cannot be shipped to the executors
    │   ├── InsufficientSlots         more partitions than task slots            .needed .available
    │   ├── StartTimeout              (also TimeoutError) no progress            .registered .missing
    │   ├── PartitionInitError        init_partition raised      .rank .attempt .remote_traceback
    │   ├── MissingDependency         (also ImportError) an executor lacks a package      .module
    │   ├── PortUnavailable           (also OSError) no port of the range can be bound    .host .ports
    │   ├── TooFewDescriptors         (also OSError) too low a limit of open files        .needed .limit
    │   ├── JobFailed                 the Spark job that runs the servers failed (``__cause__``)
    │   ├── CoordinatorLost           (also ConnectionError) the driver does not answer
    │   ├── ClusterClosed             the cluster has stopped; its servers are not started again
    │   ├── NotReady                  (also TimeoutError) not every partition answers     .ready .missing
    │   └── NotStarted                the cluster was never started
    ├── RoutingError                  a call by key was not made: nobody can tell its partition
    │   ├── NoPartitioner             the data has no partitioner, or one that this client was not given
    │   └── UnroutableKey             (also TypeError) the partitioner cannot place this key         .key
    ├── CommError                     an operation between ranks; itself: a message that does not fit its receive
    │   ├── CommRevoked               the communicator was revoked                     .rank
    │   │   └── RankLost              ... because ranks of it were lost                .ranks
    │   ├── CollectiveMismatch        ranks called different collectives    .ranks .signatures .sequence
    │   ├── CommTimeout               (also TimeoutError) a message did not come or was not taken     .missing
    │   │   └── CollectiveTimeout     ... ranks did not call a collective              .missing .sequence
    │   └── RankFailed                the function of ``run`` raised    .rank .remote_type .remote_traceback
    └── AuthenticationError           the other side refused our credentials

*Definite* means: it certainly did not happen and never will, so doing it again is safe.
"""

from __future__ import annotations

from .base import (
    AuthenticationError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SparkPartitionServerError,
    VersionMismatch,
)
from .calls import (
    CallError,
    CallOutcomeUnknown,
    CallTimeout,
    HandlerError,
    InvalidArguments,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
    StreamLost,
    Unavailable,
)
from .cluster import (
    ClusterClosed,
    ClusterError,
    CoordinatorLost,
    InsufficientSlots,
    InvalidCluster,
    JobFailed,
    MissingDependency,
    NotReady,
    NotSerializable,
    NotStarted,
    PartitionInitError,
    PortUnavailable,
    StartTimeout,
    TooFewDescriptors,
)
from .comm import CollectiveMismatch, CollectiveTimeout, CommError, CommRevoked, CommTimeout, RankFailed, RankLost
from .routing import NoPartitioner, RoutingError, UnroutableKey

__all__ = [
    "AuthenticationError",
    "CallError",
    "CallOutcomeUnknown",
    "CallTimeout",
    "ClusterClosed",
    "ClusterError",
    "CollectiveMismatch",
    "CollectiveTimeout",
    "CommError",
    "CommRevoked",
    "CommTimeout",
    "CoordinatorLost",
    "HandlerError",
    "InsufficientSlots",
    "InvalidArguments",
    "InvalidCluster",
    "JobFailed",
    "LocalProtocolError",
    "MessageTooLarge",
    "MethodNotFound",
    "MissingDependency",
    "NoPartitioner",
    "NotReady",
    "NotSerializable",
    "NotStarted",
    "Overloaded",
    "PartitionInitError",
    "PortUnavailable",
    "ProtocolError",
    "RankFailed",
    "RankLost",
    "RemoteProtocolError",
    "RoutingError",
    "SparkPartitionServerError",
    "StartTimeout",
    "StreamLost",
    "TooFewDescriptors",
    "Unavailable",
    "UnroutableKey",
    "VersionMismatch",
]
