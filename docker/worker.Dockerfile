# The worker, for CPUs (default) or with CUDA kernels (--target gpu). Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t splatworks-worker .
#   docker build -f docker/worker.Dockerfile --target gpu -t splatworks-worker-gpu .
# The default package index gives torch with CUDA libraries, some gigabytes that a CPU worker does not need: pass the index of
# CPU builds with --build-arg PIP_EXTRA_INDEX_URL=… to save them.
# Written for BuildKit; how far it has been run: docker-compose.yml.

FROM python:3.11-slim-bookworm AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# nvcc is here, so the wheel carries libsplat_cuda as well; without it the build fails rather than make a GPU image for CPUs.
FROM nvidia/cuda:12.9.1-devel-ubuntu24.04 AS wheel-gpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-pip python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /venv && /venv/bin/pip wheel --no-cache-dir --no-deps --config-settings=cmake.define.SPLAT_CUDA=ON --wheel-dir /wheels .

# The base image is enough: libsplat_cuda carries its CUDA runtime, torch brings its own libraries, the host gives the driver.
FROM nvidia/cuda:12.9.1-base-ubuntu24.04 AS gpu
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 python3-venv && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home splatworks && install -d -o splatworks /data && python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY constraints.txt /tmp/
RUN --mount=type=bind,from=wheel-gpu,source=/wheels,target=/wheels pip install --no-cache-dir -c /tmp/constraints.txt /wheels/*.whl
USER splatworks
WORKDIR /data
# cuda, not auto: a container that was given no card says so instead of training on its CPU.
ENV SPLATWORKS_DATA_DIR=/data PYTHONUNBUFFERED=1 SPLATWORKS_DEVICE=cuda
VOLUME /data
# SIGTERM ends softly: the stage writes a checkpoint and the job goes on at another worker.
CMD ["celery", "--quiet", "-A", "worker.app", "worker", "-c", "1", "-Q", "gpu", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]

FROM python:3.11-slim-bookworm AS cpu
ARG PIP_EXTRA_INDEX_URL=
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home splatworks && install -d -o splatworks /data
COPY constraints.txt /tmp/
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-cache-dir -c /tmp/constraints.txt /wheels/*.whl
USER splatworks
WORKDIR /data
ENV SPLATWORKS_DATA_DIR=/data PYTHONUNBUFFERED=1
VOLUME /data
CMD ["celery", "--quiet", "-A", "worker.app", "worker", "-c", "1", "-Q", "cpu", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
