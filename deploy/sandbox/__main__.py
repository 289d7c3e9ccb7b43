"""`python -m deploy.sandbox`: Slack, Monday.com, SMS, webhooks and SMTP, all pretended."""

import sys

from deploy.sandbox import app

if __name__ == "__main__":
    sys.exit(app.main())
