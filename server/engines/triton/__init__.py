"""Triton as the engine: client, catalogue of models, replicas, balancer."""
