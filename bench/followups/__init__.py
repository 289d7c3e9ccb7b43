from bench.followups.hand_over import HAND_OVER
from bench.followups.poll import POLL
from bench.followups.turns import TURNS

TITLE = "Follow-ups"
PARTS = (HAND_OVER, POLL, TURNS)
