from bench.alerts.accept import BATCH_PART, DELIVERED_PART
from bench.alerts.drain import DRAIN
from bench.alerts.ledger import LEDGER
from bench.alerts.memory import MEMORY
from bench.alerts.scale import SCALE
from bench.alerts.shipped import SHIPPED
from bench.alerts.sick import SICK
from bench.alerts.two_workers import TWO_WORKERS

TITLE = "Alerts"
PARTS = (DRAIN, SHIPPED, DELIVERED_PART, BATCH_PART, TWO_WORKERS, SCALE, LEDGER, SICK, MEMORY)
