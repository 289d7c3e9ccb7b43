from bench.consent.permits import PERMITS
from bench.consent.requests import STATUS_PART, WITHDRAWALS_PART
from bench.consent.size import SIZE
from bench.consent.verify import VERIFY

TITLE = "Consent"
PARTS = (WITHDRAWALS_PART, STATUS_PART, PERMITS, VERIFY, SIZE)
