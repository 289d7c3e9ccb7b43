"""The tables of followups, one function per question or change. The caller owns the transaction.

Locks are taken in this order, so that nobody waits in a circle: a conversation's row, its address,
the rows of steps.
"""
