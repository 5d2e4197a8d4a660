"""The ports to Kafka on confluent-kafka, that is, librdkafka."""
