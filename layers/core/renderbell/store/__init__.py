"""DynamoDB: the only package that knows keys and expressions.

    item                pk                                  sk                              in index `due`
    task                TASK#<id>                           TASK                            until terminal and clean
    request             TASK#<id>                           REQUEST                         no
    delivery            TASK#<id>                           DELIVERY#<event>#<endpoint>     while pending
    attempt             TASK#<id>                           ATTEMPT#<time>#<endpoint>#<event>   no
    ongoing marker      ONGOING#<connection>#<SHA-256>      <owner>                         no
    endpoint            OWNER#<owner>                       ENDPOINT#<id>                   no
    their number        OWNER#<owner>                       ENDPOINTS                       no
    endpoint's health   OWNER#<owner>                       HEALTH#<endpoint>               no
    its attempts        OWNER#<owner>                       COUNT#<endpoint>#<day>          no
    its test            OWNER#<owner>                       DELIVERY#endpoint.test#<endpoint>#<test>   while pending
    a test's attempt    OWNER#<owner>                       ATTEMPT#endpoint.test#<endpoint>#<test>#<time>   no
    secret's generation OWNER#<owner>                       SECRET                          no
    receiver's health   OWNER#<owner>                       RECEIVER#<receiver>             no
    slow receivers' seats OWNER#<owner>                     SEATS                           no
    key, by id          OWNER#<owner>                       KEY#<id>                        no
    their number        OWNER#<owner>                       KEYS                            no
    key, by hash        KEY#<SHA-256>                       KEY                             no
    connection's health CONNECTION#<name>                   HEALTH                          no
    its tasks' lengths  CONNECTION#<name>                   LENGTHS#<worker>                no
    kept answer         OWNER#<owner>                       ANSWER#<SHA-256 of its key>     no
    lease               LEASE#<worker>                      LEASE                           no
    its tasks' progress WORKER#<worker>                     PROGRESS                        no

Two writers meet like this; whoever comes second learns the winner's item from the failed condition:

    poller A   read v3 ─────────────── write if version = 3 ✔ (v4)
    API    B        read v3 ─── write if version = 3 ✘  -> VersionConflictError(current = v4)

A claim carries a random token, and every write of its holder is conditional on it. `version` rises with every write
that the index shows. It does not show progress: that is written if nobody has noted any since it was read.

Index `list`, keys only: requests as OWNER#<owner>#<slot> by time, and deliveries that were given up as
FAILED#<endpoint>, by the time of their last attempt; one that is pending again is not shown.
"""

from renderbell.store.answers import Answers, KeptAnswer
from renderbell.store.deliveries import Deliveries, delivery_key, endpoint_of
from renderbell.store.due import DUE_PROJECTION, DueDelivery, DueItems, UnreadableItem
from renderbell.store.endpoints import NO_ATTEMPTS, AttemptCounts, Endpoints
from renderbell.store.health import HEALTH_ATTRIBUTES, ConnectionHealth, Health
from renderbell.store.keys import ApiKey, ApiKeys
from renderbell.store.leases import Lease, Leases, Served
from renderbell.store.lengths import TaskLengths
from renderbell.store.listing import Listing, Place
from renderbell.store.partition import UnreadableItemError, task_id_of, task_key
from renderbell.store.progress import TaskProgress
from renderbell.store.seats import SeatsRoom
from renderbell.store.table import BUSY_RETRIES
from renderbell.store.tasks import AlreadyOngoingError, Tasks
from renderbell.store.ways import Way, Ways
from renderbell.store.work import Work, WorkClaims

__all__ = [
    "BUSY_RETRIES",
    "DUE_PROJECTION",
    "HEALTH_ATTRIBUTES",
    "NO_ATTEMPTS",
    "AlreadyOngoingError",
    "ApiKey",
    "AttemptCounts",
    "ConnectionHealth",
    "DueDelivery",
    "KeptAnswer",
    "Lease",
    "Place",
    "Served",
    "Store",
    "UnreadableItem",
    "UnreadableItemError",
    "Way",
    "Work",
    "delivery_key",
    "endpoint_of",
    "task_id_of",
    "task_key",
]


class Store(
    Tasks,
    DueItems,
    WorkClaims,
    Deliveries,
    Health,
    SeatsRoom,
    TaskLengths,
    TaskProgress,
    Endpoints,
    Ways,
    Leases,
    ApiKeys,
    Answers,
    Listing,
):
    """The one table, in the domain's words; each room of it stands in its own module."""
