"""Runs llama-server inside this process: python -m tests.lab.llama_process MODEL ALIAS PORT."""

import signal
import sys

from xllamacpp import CommonParams, Server

THREADS, SLOTS = 1, 4


def main(model: str, alias: str, port: str) -> None:
    params = CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_ctx = 512 * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = THREADS
    params.cpuparams_batch.n_threads = THREADS
    params.embedding = False
    params.endpoint_metrics = True
    params.warmup = False
    server = Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main(*sys.argv[1:])
