# syntax=docker/dockerfile:1
# A small image that runs as nobody in particular, with a read-only root and nothing in it but Python and Postroom.
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) --tag postroom .
ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/image.txt requirements/
# Every file is pinned by its hash; pip itself stays behind.
RUN python -m venv /build \
    && /build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
    && python -m venv --without-pip /opt/postroom \
    && /build/bin/pip --python /opt/postroom/bin/python install --require-hashes --only-binary :all: \
       -r requirements/image.txt
COPY . .
RUN /build/bin/python -m hatchling build -t wheel -d /dist \
    && /build/bin/pip --python /opt/postroom/bin/python install --no-deps --no-index /dist/*.whl \
    && /opt/postroom/bin/python -m compileall -q /opt/postroom/lib

FROM python:${PYTHON}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Postroom" \
      org.opencontainers.image.description="Transactional outbox, relay, inbox and dead letters on Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --system --gid 10001 postroom \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
       postroom
COPY --from=build /opt/postroom /opt/postroom
# The application's own modules (`postroom inbox run shop.billing:inbox`) go into /app, by a COPY or a volume.
WORKDIR /app
ENV PATH=/opt/postroom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    POSTROOM_HEALTH_ADDRESS=0.0.0.0:8080
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
# SIGTERM: stop claiming, wait for what is in flight, settle, give the shards back. Up to relay.shutdown_seconds.
STOPSIGNAL SIGTERM
# Alive, not ready: an outage of Kafka is no reason to start anew. Of the daemons; switch it off for other commands.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=6 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["postroom"]
CMD ["relay", "run"]
