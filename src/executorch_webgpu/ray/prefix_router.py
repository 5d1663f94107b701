"""Ray Serve's router of requests, by the beginnings of their prompts."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from .prefixes import BUSIER, Blocks, PrefixTable

# What replicas say in their routing stats: requests that they have, whether their engine is up, and when that was, by
# ``time.time``.
ONGOING, UP, AT = "ongoing", "up", "at"
DOWN_LOAD = 1 << 20  # what a replica whose engine is down counts as: it would answer at once, with an error
ARRIVING_SECONDS = 0.05  # from the choice of a replica until it counts a request that comes by another way
SENDING_SECONDS = 1.0  # that it takes at most to send a request whose replica is chosen


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray is not looked into
    """Chooses as ``PrefixTable`` ranks. The first argument of a request is its ``Blocks``.

    ``busier``: how many requests a replica may have above the idlest and still get those that it knows.
    ``by_stats``: requests do not pass through this router, only the choice of their replicas does. A replica's load is
    then what it has last said, and what was sent there since.
    """

    def initialize_state(self, busier: int = BUSIER, by_stats: bool = False) -> None:
        self._table, self._by_stats = PrefixTable(busier), by_stats
        # When requests were given to each replica that its load does not count yet.
        self._given: dict[str, deque[float]] = {}
        self._names: set[str] = set()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All replicas, each a rank of its own, from the best on."""
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        blocks = _blocks(pending_request)
        ranked = self._table.ranked(blocks, {name: self._load(replica) for name, replica in by_id.items()})
        if ranked:
            self._given.setdefault(ranked[0], deque()).append(time.time())
            if self._by_stats:
                self._table.remember(blocks, ranked[0])
        return [[by_id[name]] for name in ranked]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """There are these replicas now: what was kept of others goes."""
        super().update_replicas(replicas)
        names = {replica.replica_id.unique_id for replica in replicas}
        if gone := self._given.keys() - names:
            for name in gone:
                del self._given[name]
        if names != self._names:
            self._names = names
            self._table.keep(names)

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """A replica has got a request."""
        self._table.remember(_blocks(pending_request), replica_id.unique_id)

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """A request is sent, and from now on in the cache of loads."""
        super().on_send_request(replica_id)
        if given := self._given.get(replica_id.unique_id):
            given.popleft()

    def _load(self, replica: RunningReplica) -> int:
        if self._by_stats:
            said = replica.routing_stats
            counted, since = int(said.get(ONGOING, 0)), said.get(AT, 0) - ARRIVING_SECONDS
        else:
            counted, since = self.replica_queue_len_cache.get(replica.replica_id) or 0, time.time() - SENDING_SECONDS
        given = self._given.setdefault(replica.replica_id.unique_id, deque())
        while given and given[0] < since:
            given.popleft()
        return counted + len(given) + (0 if replica.routing_stats.get(UP, True) else DOWN_LOAD)


def _blocks(request: PendingRequest | None) -> Blocks:
    first = request.args[0] if request is not None and request.args else ()
    return first if isinstance(first, tuple) else ()
