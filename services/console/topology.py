"""The exchanges and queues of the console."""

from libs.common.messaging.topology import Binding, Exchange, work_queue
from libs.domain import acts as actions

COMMANDS = Exchange(actions.EXCHANGE, "direct")
DLX = Exchange("console.dlx", "direct")
EXCHANGES = (COMMANDS, DLX)

ACTIONS_QUEUE = "console.actions"
QUEUES = work_queue(ACTIONS_QUEUE, dlx=DLX, bindings=(Binding(COMMANDS, actions.ACTION_RECORD),))
