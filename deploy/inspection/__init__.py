"""What only an administrator sees, for `ostoja doctor`: .env, config/, RabbitMQ's accounts."""
