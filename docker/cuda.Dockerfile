# jumpgpu on NVIDIA GPUs: `make wheels`, then `docker build -f docker/cuda.Dockerfile -t jumpgpu:cuda .`
# `docker run --gpus all jumpgpu:cuda doctor`. CUDA comes with torch; the driver is the host's. For CUDA 12:
# --build-arg CUDA=cuda12 --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
FROM python:3.11-slim
ARG CUDA=cuda13
ARG TORCH_INDEX=https://pypi.org/simple
COPY dist/jumpgpu-*-manylinux_2_28_*.whl /wheels/
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} --find-links /wheels "jumpgpu[${CUDA},map,harmony,cluster]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 jumpgpu
USER 1000
WORKDIR /data
ENTRYPOINT ["jumpgpu"]
CMD ["doctor"]
