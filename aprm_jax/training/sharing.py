"""What hosts have written is there for all of them, whether or not they share a folder.

Where a run is kept in a bucket each host works in a folder of its own; see `bucket`.
"""

from __future__ import annotations

from aprm_jax.training import bucket, hosts


def hosts_apart() -> bool:
    """Whether several hosts compute together, each in a folder of its own."""
    return bool(bucket.of_this_run()) and hosts.count() > 1


def share(what: str) -> None:
    """Whatever the leader has written is there for all hosts, and at the address.

    Args:
      what: names the place, the same on all hosts.

    Raises:
      WorkdirError: the address cannot be read or written.
    """
    if hosts.leader():
        for kept in bucket.of_this_run():
            kept.writes = True
            kept.push()
    hosts.barrier(what)
    if hosts_apart() and not hosts.leader():
        for kept in bucket.of_this_run():
            kept.follow()


def gather(what: str) -> None:
    """Whatever any host has written is there for all that have folders of their own.

    Args:
      what: names the place, the same on all hosts.

    Raises:
      WorkdirError: the address cannot be read or written.
    """
    if not hosts_apart():
        return
    mine = (
        {}
        if hosts.leader()
        else [kept.hand_over(hosts.index()) for kept in bucket.of_this_run()]
    )
    given = hosts.exchange(what, mine)
    if hosts.leader():
        for host, files in enumerate(given[1:], 1):
            for kept, of_host in zip(bucket.of_this_run(), files, strict=True):
                kept.take_over(host, of_host)
    share(f"{what}, shared")
