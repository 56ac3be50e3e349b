"""The users of open traffic: a pool for every segment, of whom each request has one, some of them more often than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sim.errors import Problems
from sim.workload.base import FloatArray, WordArray

MAX_USERS = 1_000_000
MAX_SKEW = 5.0

# A word of 64 bits gives a place in the pool by its upper 40 bits and, by the others, one of the two users who share that place.
_CHANCE_BITS = 24
_PLACE_BITS = 40


class UserPools:
    """Gives every request a user of its segment by a random word of its own, which nothing else uses.

    Users are numbered from 1 through all segments, so that each has a number of its own in the service; the k-th of a segment
    has weight k^-skew. Weights are met to 1 in a million of the mean user's.

    Parameters
    ----------
    users : how many each segment has, at least 1, by segment number. skew : 0 for users who are equally active.

    Source: the alias method, A. J. Walker, ACM Trans. Math. Softw. 3, 253 (1977).

    Examples
    --------
    >>> pools = UserPools([2, 1])
    >>> pools.draw(np.array([0, 2**64 - 1, 5], np.uint64), np.array([0, 0, 1], np.int32)).tolist()
    [1, 2, 3]
    """

    def __init__(self, users: Sequence[int], skew: float = 0.0) -> None:
        self._users = np.array(users, np.uint64)
        self._first = np.array([0, *accumulate(users)][:-1], np.int64)
        shared = [_alias(np.arange(1, count + 1, dtype=np.float64) ** -skew) for count in users]
        self._own = np.concatenate([own for own, _ in shared])
        others = np.concatenate([other + first for first, (_, other) in zip(self._first, shared, strict=True)])
        self._numbers = np.stack([np.arange(len(others)), others], axis=1).ravel().astype(np.int32) + np.int32(1)

    def draw(self, words: WordArray, segments: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the users of requests.

        Parameters
        ----------
        words : uint64, (n,), random. segments : int32, (n,), the segment number of each request.

        Returns
        -------
        int32, (n,), numbers from 1 on.
        """
        scaled = (words >> np.uint64(_CHANCE_BITS)) * self._users.take(segments)
        places = (scaled >> np.uint64(_PLACE_BITS)).view(np.int64)
        places += self._first.take(segments)
        chances = words.astype(np.uint32) & np.uint32((1 << _CHANCE_BITS) - 1)
        other = chances >= self._own.take(places)
        places <<= 1
        places += other
        return self._numbers.take(places)


def _alias(weights: FloatArray) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """For each of equally likely places: how often (of 2^24) it is its own user's, and whose it is else."""
    chances = (weights / weights.sum() * len(weights)).tolist()
    own, other = [1.0] * len(chances), list(range(len(chances)))
    poor = [user for user, chance in enumerate(chances) if chance < 1.0]
    rich = [user for user, chance in enumerate(chances) if chance >= 1.0]
    # A place that its user does not fill is filled by one who has more than a place, and who may then be short of one.
    while poor and rich:
        user, helper = poor.pop(), rich.pop()
        own[user], other[user] = chances[user], helper
        chances[helper] -= 1.0 - chances[user]
        (poor if chances[helper] < 1.0 else rich).append(helper)
    return np.rint(np.array(own) * 2**_CHANCE_BITS).astype(np.uint32), np.array(other, np.int64)


def check_users(users: Mapping[str, int], skew: float, segments: Sequence[str], path: str, problems: Problems) -> None:
    """Add what is wrong with the users of segments and with their skew (an empty mapping is nobody known).

    Parameters
    ----------
    segments : names of the workload's segments. path : of the workload.
    """
    for name, count in users.items():
        problems.check(name in segments, f"{path}.users.{name}", name, "is not a segment of the workload", choices=segments)
        problems.check(count >= 1, f"{path}.users.{name}", count, "must be a number of users", f"1 to {MAX_USERS}")
    missing = [name for name in segments if users and name not in users]
    message = f"leaves out {', '.join(missing)}: either all segments have users, or none"
    problems.check(not missing, f"{path}.users", dict(users), message, "a number for every segment")
    total = sum(users.values())
    problems.check(
        total <= MAX_USERS, f"{path}.users", total, "are too many users", f"at most {MAX_USERS} in all segments together"
    )
    problems.check(0 <= skew <= MAX_SKEW, f"{path}.user_skew", skew, "is out of range", f"0 to {MAX_SKEW:g}")
    message = "says how active users are, and there are none: set users"
    problems.check(bool(users) or skew == 0, f"{path}.user_skew", skew, message, "0, or users")


def users_of(users: Mapping[str, int], segments: Sequence[str]) -> tuple[int, ...]:
    """Return how many users each segment has, in the order of the segments; empty where they are not known."""
    return tuple(users[name] for name in segments if users)
