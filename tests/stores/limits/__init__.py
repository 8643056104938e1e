"""Tests of llmgateway.stores.limits."""
