"""The server as an application of Ray Serve: replicas with a GPU each, and requests that go where their prefix is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve.config import RequestRouterConfig

from ..errors import InvalidInputError
from ..runtime import LoadOptions
from ..serve.limits import Limits
from ..serve.settings import EngineSettings, ServerSettings
from .direct import Route, with_route
from .front import Front
from .prefix_router import PrefixRouter
from .prefixes import BUSIER
from .replica import STATS_SECONDS, DirectReplica, HandledReplica, ReplicaSettings
from .sources import name_everywhere

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
ENDING_SECONDS = 10  # that a replica which has no requests any more gets to end its engine in
LOOK_SECONDS = 0.5  # between two looks at whether a replica that is stopped has requests
REPLICAS, FRONT, ROUTE = "replicas", "front", "route"  # what deployments are called


class ServeArguments(BaseModel):
    """What ``build_app`` takes, in Python or as ``args`` of a Serve config file.

    ``source``, ``embeddings``: a language model and an encoder, as commands name them; at least one. ``name``,
    ``embeddings_name``: what /v1/models calls them. ``engine``, ``adapter``: by default the GPU that Ray gives to a
    replica. ``loading``: fields of ``LoadOptions``. ``sizes``: what ``Engine`` takes, such as ``max_sequences``.
    ``speculate``, ``max_prompt_tokens``, ``max_choices``, ``page``: as ``et-webgpu serve`` has them. ``limits``: fields
    of ``serve.limits.Limits``, of each replica. ``api_key_file``: on every machine. ``host``: what the server is bound
    to; on loopback, or with ``allowed_hosts``, it answers to known names only.
    ``replicas``: how many; or ``autoscaling``: Serve's ``autoscaling_config``. ``num_gpus``, ``num_cpus`` of each;
    ``actor_options``: more of Serve's ``ray_actor_options``, such as ``resources``. ``fronts``: processes that read
    requests, without HAProxy. ``busier``: see ``PrefixTable``. ``grace_seconds``: that streams get to end in when a
    replica is stopped. ``health_seconds``: between two looks at whether its engine is up.
    """

    model_config = ConfigDict(extra="forbid")

    source: str | None = None
    embeddings: str | None = None
    name: str = "model"
    embeddings_name: str = "embeddings"
    engine: str | None = None
    adapter: int | str | None = None
    loading: dict[str, Any] = Field(default_factory=dict)
    sizes: dict[str, Any] = Field(default_factory=dict)
    speculate: str | None = None
    max_prompt_tokens: int | None = None
    max_choices: int = 128
    page: bool = True
    limits: dict[str, Any] = Field(default_factory=dict)
    api_key_file: str | None = None
    host: str = "127.0.0.1"
    allowed_hosts: list[str] = Field(default_factory=list)
    cors_origins: list[str] = Field(default_factory=list)
    open_metrics: bool = False
    replicas: int = Field(1, ge=1)
    autoscaling: dict[str, Any] | None = None
    num_gpus: float = Field(0, ge=0)
    num_cpus: float = Field(1, ge=0)
    actor_options: dict[str, Any] = Field(default_factory=dict)
    fronts: int = Field(1, ge=1)
    busier: int = Field(BUSIER, ge=0)
    grace_seconds: float = Field(30, ge=0)
    health_seconds: float = Field(10, gt=0)

    def replica(self) -> ReplicaSettings:
        """What each replica is made with. Raises InvalidInputError for options that there are not."""
        if self.source is None and self.embeddings is None:
            raise InvalidInputError("give a language model as source, an encoder as embeddings, or both")
        try:
            loading, limits = LoadOptions(**self.loading), Limits(**self.limits)
        except TypeError as error:
            raise InvalidInputError(f"an option of loading or limits is none: {error}") from error
        program, embeddings, speculate = (
            None if each is None else name_everywhere(each) for each in (self.source, self.embeddings, self.speculate)
        )
        engine = EngineSettings(program, embeddings, self.engine, self.adapter, loading, dict(self.sizes), speculate)
        names = self.name, self.embeddings_name
        server = ServerSettings(engine, *names, self.max_prompt_tokens, self.max_choices, self.page)
        network = {
            "host": self.host,
            "allowed_hosts": self.allowed_hosts,
            "cors_origins": self.cors_origins,
            "open_metrics": self.open_metrics,
        }
        return ReplicaSettings(server, limits, self.api_key_file, self.grace_seconds, network)


def build_app(args: ServeArguments | Mapping[str, Any]) -> serve.Application:
    """The application, for ``serve.run``, ``serve run executorch_webgpu.ray:build_app`` and Serve config files.

    ``args``: what ``ServeArguments`` says. With RAY_SERVE_ENABLE_HA_PROXY=1 in the environment of Ray and of whoever
    calls this, HAProxy takes requests straight to replicas; else Serve's proxies take them to fronts, and these to
    replicas. Raises InvalidInputError for arguments that cannot be.
    """
    given = args if isinstance(args, ServeArguments) else _checked(args)
    scale: dict[str, Any] = {"num_replicas": given.replicas}
    if given.autoscaling is not None:
        scale = {"autoscaling_config": given.autoscaling}
    resources = {"num_cpus": given.num_cpus, "num_gpus": given.num_gpus, **given.actor_options}
    options = {"ray_actor_options": resources, "health_check_period_s": given.health_seconds, **scale}
    return application(given.replica(), options, fronts=given.fronts, busier=given.busier)


def application(
    settings: ReplicaSettings, options: Mapping[str, Any], *, fronts: int = 1, busier: int = BUSIER
) -> serve.Application:
    """``build_app`` of settings. ``options``: of the replicas' deployment, such as ``num_replicas``."""
    direct = os.environ.get(HAPROXY) == "1"
    # A replica itself says 429 when it has too much.
    most = settings.limits.max_running + settings.limits.max_queue
    router = RequestRouterConfig(
        request_router_class=PrefixRouter,
        request_router_kwargs={"busier": busier, "by_stats": direct},
        request_routing_stats_period_s=STATS_SECONDS,
    )
    grace, looks = settings.grace_seconds, {"graceful_shutdown_wait_loop_s": LOOK_SECONDS}
    made = serve.deployment(
        name=REPLICAS,
        max_ongoing_requests=2 * most,
        request_router_config=router,
        graceful_shutdown_timeout_s=grace + ENDING_SECONDS,
        **looks,
        **options,
    )
    light = serve.deployment(
        name=ROUTE if direct else FRONT,
        num_replicas=1 if direct else fronts,
        max_ongoing_requests=100 * most,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=grace,
        **looks,
    )
    if direct:
        replicas = made(serve.ingress()(DirectReplica)).bind(settings)
        return with_route(replicas, light(serve.ingress()(Route)).bind(replicas))
    replicas = made(HandledReplica).bind(settings)
    open_metrics = settings.network.get("open_metrics", False)
    return light(serve.ingress()(Front)).bind(replicas, settings.limits, settings.api_key_file, open_metrics)


def _checked(args: Mapping[str, Any]) -> ServeArguments:
    try:
        return ServeArguments.model_validate(dict(args))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInputError(f"the arguments of the application are wrong: {wrong}") from error
