# The training image, of a checkout, for TPUs or for NVIDIA GPUs:
#   docker build --build-arg ACCELERATOR=tpu --tag coi-jax:tpu .
#   docker build --build-arg ACCELERATOR=cuda12 --tag coi-jax:cuda12 .
# CUDA comes with JAX's wheels; a host with GPUs needs the driver and NVIDIA's container toolkit alone.
FROM python:3.11-slim-bookworm

# An extra of pyproject.toml: tpu, cuda12 or cuda13.
ARG ACCELERATOR=tpu

# git tells the commit of a run. Its version is that of the base image's Debian.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /coi-jax

# The packages first: the gigabytes of this layer change only with the files that declare them.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt ".[${ACCELERATOR},gcs,data]"

COPY . .
RUN pip install --no-cache-dir --no-deps --editable .

CMD ["python", "-m", "coi_jax.train", "--help"]
