"""`llmgateway conform`: what the official SDKs rely on, asked of a deployment behind its ingress."""
