"""The tables of followups, one function per question or change. The caller owns the transaction.

Locks are taken in this order, so that nobody waits in a circle: a conversation's row, contacts
and the lead known by them, addresses, the rows of steps.
"""
