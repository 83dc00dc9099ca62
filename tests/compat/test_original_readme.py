"""The examples of the original library's README (2016), typed in Python 3 and otherwise word for word.

They stand inside functions because the classes of a test module could not be imported on an executor; on the prompt,
where the README runs them, they are shipped by value as they are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.processes import leftovers
from support.spark import spark_application


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local[2]") as context:
        yield context


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    leftovers()


def demo_cluster() -> Any:
    from flask import Blueprint
    import requests
    from spark_partition_server import Cluster, FlaskPartitionServer

    # Define a simple Flask server to run on partitions
    class DemoPartitionServer(FlaskPartitionServer):
        def __init__(self, **kwargs):

            # Define server as Flask Blueprint
            blueprint = Blueprint('app', __name__)

            @blueprint.route('/get_list')
            def get_list():
                return ','.join(map(str, self.partition))

            super(DemoPartitionServer, self).__init__(blueprint=blueprint, **kwargs)

        def init_partition(self, itr, app, config):
            self.partition = list(itr)

    # Define a Cluster class to query partitions
    class DemoCluster(Cluster):
        def __init__(self, *args, **kwargs):
            kwargs['partition_server'] = DemoPartitionServer()
            super(DemoCluster, self).__init__(*args, **kwargs)

        def get_partition_list(self, ind):
            url = 'http://%s:%d/app/get_list' % self.coordinator.hosts[ind]
            rsp = requests.get(url).text
            return map(int, rsp.split(','))

    return DemoCluster


@pytest.mark.smoke
def test_simple_usage_example(sc: Any) -> None:
    """`self.coordinator.hosts[ind]` is there right after a plain `c.start()`, and "it can be restarted anytime"."""
    DemoCluster = demo_cluster()

    # Create an RDD with 2 partitions
    rdd = sc.parallelize(range(1000), 2)

    # Create and start a cluster on this RDD
    c = DemoCluster(sc, rdd)
    c.start()

    # Fetch data from partition 0
    assert list(c.get_partition_list(0)) == list(range(500))
    assert list(c.get_partition_list(1)) == list(range(500, 1000))

    # Shutdown the cluster (it can be restarted anytime)
    c.stop()
    c.start()
    assert list(c.get_partition_list(1)) == list(range(500, 1000))
    c.stop()


def test_function_form(sc: Any) -> None:
    """The blueprint and the init function without a subclass, with `current_app.config`."""
    import requests
    from flask import Blueprint

    from spark_partition_server import Cluster, FlaskPartitionServer

    blueprint = Blueprint('app', __name__)
    @blueprint.route('/concat')
    def concat():
        from flask import current_app
        return ','.join(map(str, current_app.config['DATA']))

    def init(itr, app, config):
        app.config.update(DATA=list(itr))

    s = FlaskPartitionServer(blueprint=blueprint, init_partition=init)

    rdd = sc.parallelize(range(10), 2)
    c = Cluster(sc, rdd, s)
    c.start(await_hosts=True)
    assert requests.get('http://%s:%d/app/concat' % c.get_hosts()[1], timeout=10).text == '5,6,7,8,9'
    assert requests.get('http://%s:%d/control/ping' % c.get_hosts()[0], timeout=10).status_code == 200
    c.stop()


def test_subclass_form_and_getting_results(sc: Any) -> None:
    """`_build_result`, `cache_result=True` and `get_result_rdd()`; the result outlives the cluster and `unpersist`."""
    import requests
    from flask import Blueprint

    from spark_partition_server import Cluster, FlaskPartitionServer

    class DemoPartitionServer(FlaskPartitionServer):
        def __init__(self, **kwargs):
            blueprint = Blueprint('app', __name__)
            @blueprint.route('/concat')
            def concat():
                return ','.join(map(str, self.partition))

            super(DemoPartitionServer, self).__init__(blueprint=blueprint, **kwargs)

        def init_partition(self, itr, app, config):
            self.partition = list(itr)

        def _build_result(self):
            return [sum(self.partition)]

    rdd = sc.parallelize(range(1000), 2)

    c = Cluster(sc, rdd, DemoPartitionServer(), cache_result=True)
    c.start()

    # ... later ...
    assert requests.get('http://%s:%d/app/concat' % c.coordinator.hosts[0], timeout=10).text.startswith('0,1,2')
    c.stop()

    result_rdd = c.get_result_rdd()
    assert result_rdd.collect() == [124750, 374750]
    result_rdd.unpersist()
    assert result_rdd.collect() == [124750, 374750]


def test_config_and_callbacks(sc: Any) -> None:
    """`config` reaches the init function; the register callback gets the original's keys; both `hosts` are live."""
    import requests
    from flask import Blueprint

    from spark_partition_server import Cluster, FlaskPartitionServer

    blueprint = Blueprint('app', __name__)
    @blueprint.route('/config')
    def show():
        from flask import current_app, jsonify
        config = current_app.config
        server = config['PARTITION_SERVER']
        return jsonify([config['NAME'], config['PARTITION'], config['PORT'], server.partition_ind, server.config])

    def init(itr, app, config):
        app.config.update(NAME=config['name'], ROWS=list(app.config['PARTITION_ITERATOR']))

    seen = []
    c = Cluster(sc, sc.parallelize(range(4), 2), FlaskPartitionServer(blueprint, init, config={'name': 'n'}))
    c.start(await_hosts=False)
    c.coordinator.set_register_callback(seen.append)
    assert c.coordinator.wait(lambda: c.coordinator.full_cluster, 30)
    host, port = c.coordinator.hosts[1]
    answer = requests.get('http://%s:%d/app/config' % (host, port), timeout=10).json()
    assert answer == ['n', 1, port, 1, {'name': 'n'}]
    for entry in seen:
        assert sorted(entry) == ['full_cluster', 'new_entry', 'old_entry', 'partition_ind']
    c.stop()
    assert c.get_hosts() == {}
