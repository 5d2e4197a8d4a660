"""Postroom: transactional outbox, relay, inbox and dead letters for Python, Kafka and SQL."""

__version__ = "0.1.0"
