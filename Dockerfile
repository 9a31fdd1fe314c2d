# arbor demo, solve and serve in a container. The base by argument:
#   docker build -t arbor .
#   docker build -t arbor:cuda --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# docs/serving.md says how it is run, and what the sandbox of the models' code needs of the container's runtime.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap libseccomp2 tini python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Packages first: they change more rarely than the code.
WORKDIR /opt/arbor
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt requirements-serve.txt ./
RUN "$(command -v python3)" -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir "$(grep '^torch==' requirements.txt)" --extra-index-url "${TORCH_INDEX}" \
    && /opt/venv/bin/pip install --no-cache-dir -r requirements.txt -r requirements-serve.txt
COPY . .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps .

RUN useradd --create-home arbor
USER arbor
WORKDIR /home/arbor
ENV PATH=/opt/venv/bin:${PATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
EXPOSE 8000
# SIGTERM reaches arbor, and processes that lost their parent are reaped.
ENTRYPOINT ["tini", "--", "arbor"]
CMD ["demo"]
