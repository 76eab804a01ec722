"""Everything that speaks to Kafka; nothing outside this package imports a Kafka client."""
