"""Tests of llmgateway.stores: one conformance suite, run against every implementation."""
