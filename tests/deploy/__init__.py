"""Tests of what the gateway is shipped and run with: image, manifests, workflows, dashboards, the guide."""
