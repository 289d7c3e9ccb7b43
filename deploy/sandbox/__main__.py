"""`python -m deploy.sandbox`: a stand-in for Slack, Monday.com, SMS, webhooks and SMTP."""

import sys

from deploy.sandbox import app

if __name__ == "__main__":
    sys.exit(app.main())
