"""``et-webgpu serve --replicas``: the application on a Ray cluster of this machine, until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import Error, InvalidInputError

if TYPE_CHECKING:
    from .replica import ReplicaSettings

ROUTED_BYTES = 1 << 16  # of a request, which HAProxy reads before it asks where it goes; each connection takes as much


def prepare_environment() -> None:
    """Say how Ray runs a server of one machine, unless it is to run on a cluster that there is. Before Ray is loaded.

    What the environment says already counts.
    """
    if "RAY_ADDRESS" not in os.environ:
        for name, value in _environment().items():
            os.environ.setdefault(name, value)


def serve_replicas(
    settings: ReplicaSettings, replicas: int, host: str, port: int, announce: Callable[[str], None]
) -> None:
    """Run a server of several replicas until SIGINT or SIGTERM. ``announce`` is given its address once it listens.

    With RAY_ADDRESS in the environment it runs on that cluster; else on one of this machine, which ends with it, and
    whose processes talk over the loopback interface, after ``prepare_environment``. Where the cluster has GPUs, each
    replica gets one. ``port``: 0 chooses a free one.
    Raises InvalidInputError when there are fewer GPUs than replicas, Error when it cannot start.
    """
    import ray
    from ray import serve

    from .adapters import check_adapters
    from .application import application

    port = port or _free_port()
    before = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(include_dashboard=False, logging_level="warning", log_to_driver=False)
        except Exception as error:  # Ray's word for much that can go wrong
            raise Error(f"Ray cannot start here: {' '.join(str(error).split())}") from error
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if 0 < gpus < replicas:
            raise InvalidInputError(f"the cluster has {gpus} GPUs, so it cannot have {replicas} replicas with one each")
        if gpus and "RAY_ADDRESS" not in os.environ:  # else Ray would start replicas that cannot be, again and again
            check_adapters(replicas, settings.server.engine.engine)
        options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0, "num_gpus": min(gpus, 1)}}
        _deploy(serve, application(settings, options), host, port)
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        serve.shutdown()
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _deploy(serve: Any, made: Any, host: str, port: int) -> None:
    """Returns when all replicas are up."""
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
        serve.run(made)
    except RuntimeError as error:  # with the traceback of a replica, whose last line says what is wrong
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Error(f"the replicas cannot start: {words[-1] if words else 'Ray Serve does not say why'}") from error


def _environment() -> dict[str, str]:
    chosen = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the node's address is that of loopback, as it is there
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_agent_register_timeout_ms": "120000",  # on a machine that is busy
    }
    if sys.platform == "linux":  # for which Ray brings HAProxy along
        chosen |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY": "1",
            "RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_BUFSIZE": str(ROUTED_BYTES),
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            # Of several servers on a machine, each needs its own.
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
            # A server that stops as a whole need not wait until every balancer knows of it.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        }
    return chosen


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port
