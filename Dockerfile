# The image of the gateway: the lock's wheels in an environment of their own, and nothing that builds or tests.
# `make image` builds it; `make image-test` builds it without a registry, runs it and measures it.
ARG BASE=docker.io/library/python:3.13.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements-build.lock requirements.lock ./
# pip stays in the environment of the tools; nothing installs anything in the one that is shipped.
RUN python3 -m venv tools \
    && tools/bin/python -m pip install --require-hashes --only-binary :all: -r requirements-build.lock \
    && python3 -m venv --without-pip /opt/llmgateway \
    && tools/bin/python -m pip --python /opt/llmgateway/bin/python install \
        --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY llmgateway llmgateway
ARG SOURCE_DATE_EPOCH=1767225600
RUN SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
        tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/python -m pip --python /opt/llmgateway/bin/python install --no-deps --no-index dist/*.whl

FROM ${BASE}
# Ids and not names, so that Kubernetes can see that it is not root. The base's own pip goes: nobody needs it here.
RUN groupadd --gid 10001 llmgateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin llmgateway \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/llmgateway \
    && rm -rf /usr/local/lib/python3*/site-packages /usr/local/lib/python3*/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/llmgateway /opt/llmgateway
# The working directory is laid out as a checkout, so the documented commands and default paths hold in here too.
COPY config/gunicorn.conf.py /etc/llmgateway/config/gunicorn.conf.py
WORKDIR /etc/llmgateway
ENV PATH=/opt/llmgateway/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LLMGATEWAY_HOST=0.0.0.0 \
    LLMGATEWAY_PORT=8080 \
    LLMGATEWAY_DATA_DIR=/var/lib/llmgateway
VOLUME /var/lib/llmgateway
EXPOSE 8080
USER 10001:10001
STOPSIGNAL SIGTERM
# Alive, not ready: whoever restarts what is unhealthy must not restart a gateway whose database is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "\
import http.client, os; \
asked = http.client.HTTPConnection('127.0.0.1', int(os.environ['LLMGATEWAY_PORT']), timeout=4); \
asked.request('GET', '/health/live'); \
raise SystemExit(asked.getresponse().status != 200)"]

# No shell in between: signals reach the gateway. In production the words are those of the README:
#   gunicorn -c config/gunicorn.conf.py llmgateway.asgi:app
ENTRYPOINT []
CMD ["llmgateway", "serve"]

ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=2026-01-01T00:00:00Z
LABEL org.opencontainers.image.title="llmgateway" \
      org.opencontainers.image.description="A gateway in front of the language models an organisation hosts." \
      org.opencontainers.image.source="https://github.com/llmgateway/llmgateway" \
      org.opencontainers.image.documentation="https://github.com/llmgateway/llmgateway/tree/main/docs" \
      org.opencontainers.image.licenses="MIT AND Apache-2.0 AND BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13.14-slim-bookworm"
