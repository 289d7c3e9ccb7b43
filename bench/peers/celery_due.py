"""A polling loop like a Celery beat task: for each due row, send a task and commit."""

import os
import time

import psycopg2

MAIL = "m" * 5000
"""A text as long as a rendered follow-up."""


def main() -> None:
    import celery
    from kombu import Queue

    app = celery.Celery("bench", broker=os.environ["AMQP_URL"])
    app.conf.update(
        task_queues=[Queue("bench.peer", queue_arguments={"x-queue-type": "quorum"})],
        task_default_queue="bench.peer",
        task_ignore_result=True,
        broker_transport_options={"confirm_publish": True},
    )
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    cursor = connection.cursor()
    while True:
        cursor.execute(
            "SELECT id::text FROM followups.followup_event "
            "WHERE status = 'scheduled' AND due_at <= now() ORDER BY due_at LIMIT 100"
        )
        due = cursor.fetchall()
        for (step,) in due:
            app.send_task("send_mail", args=[step, MAIL])
            cursor.execute(
                "UPDATE followups.followup_event SET status = 'handed_over', "
                "handed_over_at = clock_timestamp() WHERE id = %s",
                (step,),
            )
            connection.commit()
        if not due:
            connection.commit()
            time.sleep(1)


if __name__ == "__main__":
    main()
