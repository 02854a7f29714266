"""WHO asks: the SMART App Launch 2.2 authorization server, its clients, people, tokens and pages.

A token says who asks and what they were allowed to ask for, never what may be seen: this room does not know
the policy, and what a person grants here is narrowed again at every request.
"""
