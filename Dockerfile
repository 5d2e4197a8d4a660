FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/image.txt requirements/
RUN python -m venv /build && /build/bin/pip install --require-hashes -r requirements/build.txt
RUN python -m venv /opt/postroom && /opt/postroom/bin/pip install --require-hashes -r requirements/image.txt
COPY . .
RUN /build/bin/python -m hatchling build -t wheel -d /dist \
    && /opt/postroom/bin/pip install --no-deps --no-index /dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home postroom
COPY --from=build /opt/postroom /opt/postroom
ENV PATH=/opt/postroom/bin:$PATH PYTHONUNBUFFERED=1
USER postroom
ENTRYPOINT ["postroom"]
CMD ["relay", "run"]
