"""The ports to Kafka on kafka-python 3."""
