# jumpgpu on processors: `make wheels`, then `docker build -f docker/cpu.Dockerfile -t jumpgpu:cpu .`
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY dist/jumpgpu-*-manylinux_2_28_*.whl /wheels/
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} --find-links /wheels "jumpgpu[map,harmony,cluster]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 jumpgpu
USER 1000
WORKDIR /data
ENTRYPOINT ["jumpgpu"]
CMD ["doctor"]
