"""Delivers the notifications of Subscriptions (https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/).

There is no queue of events.  The events of a Subscription are what its subscriber sees in the histories since the last notification,
and the store has those; so they survive a restart, whoever delivers next, and are computed as if what the subscriber may not see did
not exist, at the moment of each attempt.  :mod:`.delivery` makes one attempt for one Subscription, :mod:`.dispatcher` decides when.
:mod:`.socket_app` opens the websockets of subscribers, and :mod:`.sockets` knows which Subscriptions are told on which of them.
"""
